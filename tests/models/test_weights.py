import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec
from dogs_accel.models.weights import load_weights
from tests.support.random_models import build


def behind(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def of(state):
    """Other weights of the same model."""
    return {key: value + 1 for key, value in state.items()}


def averaged(state):
    """As torch.optim.swa_utils has them, with a counter beside."""
    model = build("resnet18", 10)
    model.load_state_dict(state)
    return AveragedModel(model).state_dict()


WRAPPED = {
    "plain": (lambda s: s, ""),
    "under state_dict": (lambda s: {"state_dict": s}, " (under state_dict)"),
    "under model, with the rest": (
        lambda s: {"optimizer": {"state": {0: {"exp_avg": s["fc.bias"]}}, "param_groups": []}, "model": s, "epoch": 3,
                   "args": argparse.Namespace(lr=0.1)},
        " (under model)",
    ),
    "twice": (lambda s: {"model": {"state_dict": s}}, " (under model.state_dict)"),
    "under a key of its own": (lambda s: {"best": s, "step": 9}, " (under best)"),
    "beside a number": (lambda s: {**s, "epoch": 3, 7: torch.zeros(1)}, ""),
    "data-parallel": (lambda s: behind("module.", s), " (behind module.)"),
    "compiled": (lambda s: behind("_orig_mod.", s), ""),
    "compiled inside": (lambda s: {key.replace("layer1.", "layer1._orig_mod."): each for key, each in s.items()}, ""),
    "both, of Lightning": (
        lambda s: {"state_dict": {**behind("model.module._orig_mod.", s), "loss.weight": torch.ones(3)}},
        " (under state_dict, behind model.module., 1 other entries left out, the first loss.weight)",
    ),
    "averaged, of timm": (lambda s: {"state_dict": of(s), "state_dict_ema": s}, " (under state_dict_ema)"),
    "averaged, of torchvision": (
        lambda s: {"model": of(s), "model_ema": averaged(s)},
        " (under model_ema, behind module., 1 other entries left out, the first n_averaged)",
    ),
    "averaged, in one": (
        lambda s: {**behind("net.", of(s)), **behind("net_ema.", s)},
        " (behind net_ema., 122 other entries left out, the first net.conv1.weight)",
    ),
}  # fmt: skip


@pytest.mark.fault(
    "Archives and checkpoints",
    "weights under model or state_dict, behind module. or _orig_mod., beside averaged ones",
    "loaded; the run says what was taken from where",
)
@pytest.mark.parametrize("how", WRAPPED)
def test_weights_in_every_wrapping(tmp_path, how):
    wrap, said = WRAPPED[how]
    donor, path = build("resnet18", 10).state_dict(), tmp_path / "w.pth"
    torch.save(wrap(donor), path)
    model = build("resnet18", 10)
    assert load_weights(model, path) == f"weights of {path}{said}"
    assert all(torch.equal(value, donor[key]) for key, value in model.state_dict().items())


@pytest.mark.fault(
    "Archives and checkpoints",
    "weights with a head for other classes, or with none",
    "all but the head is loaded, and the run says so",
)
def test_weights_of_another_head_load_all_but_the_head_and_say_so(tmp_path):
    donor = build("vit_b_16", 10, 32)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    built = build_model(model_spec("vit_b_16", 32), 7, str(tmp_path / "w.safetensors"), seed=9)
    assert built.note.endswith("without the head (file: 10 classes, here: 7)")
    own, given = built.model.state_dict(), donor.state_dict()
    assert own["heads.head.weight"].shape == (7, 768)
    assert all(torch.equal(own[key], given[key]) for key in own if not key.startswith("heads.head."))


@pytest.mark.parametrize(("head", "said"), [({}, "no"), ({"fc.weight": torch.zeros(())}, "0")])
def test_a_file_without_a_head_says_so(tmp_path, head, said):
    state = {key: value for key, value in build("resnet18", 5).state_dict().items() if not key.startswith("fc.")}
    torch.save(state | head, tmp_path / "w.pth")
    model = build("resnet18", 5)
    assert load_weights(model, tmp_path / "w.pth").endswith(f", without the head (file: {said} classes, here: 5)")
    assert torch.equal(model.conv1.weight, state["conv1.weight"])


def test_missing_counters_are_no_obstacle(tmp_path):
    state = build("resnet18", 5).state_dict()
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    model = build("resnet18", 5)
    load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.conv1.weight, state["conv1.weight"])


@pytest.mark.fault(
    "Archives and checkpoints",
    "weights with missing, surplus, misshapen or infinite entries",
    "one line with the number of each and the first name",
)
def test_weights_that_do_not_fit_are_refused_with_the_first_name(tmp_path):
    state = build("resnet18", 5).state_dict()
    del state["conv1.weight"]
    state["surplus"] = torch.zeros(1)
    state["bn1.weight"] = torch.zeros(3)
    state["bn1.bias"][2] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not fit the model: ") as refused:
        load_weights(build("resnet18", 5), tmp_path / "w.pth")
    assert str(refused.value).endswith(
        ": 1 missing (first: conv1.weight), 1 left over (first: surplus), 1 of another shape (first: bn1.weight), "
        "1 without finite numbers (first: bn1.bias)"
    )


class _Surprise:
    def __reduce__(self):
        return (print, ("code ran",))


def save_itself(path):
    content = {"x": 3}
    content["model"] = content
    torch.save(content, path)


def without_values(path):
    torch.save({key: value.to("meta") for key, value in build("resnet18", 5).state_dict().items()}, path)


NO_WEIGHTS = {
    "text": (lambda path: path.write_text("hello"), "as a state dict ("),
    "empty": (lambda path: path.write_bytes(b""), "as a state dict (it is damaged, or none that torch.save wrote)"),
    "code": (
        lambda path: torch.save({"x": _Surprise()}, path),
        "as a state dict (it holds print, and only tensors, numbers and text are read; save model.state_dict())",
    ),
    "a whole model": (lambda path: torch.save(nn.Linear(2, 2), path), "it holds torch.nn.modules.linear.Linear, and"),
    "another pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "it is damaged, or none that torch.save"),
    "TorchScript": (lambda path: torch.jit.save(torch.jit.script(nn.ReLU()), path), "a TorchScript archive, of"),
    "a number": (lambda path: torch.save({"x": 3}, path), "holds no state dict"),
    "numbers for names": (lambda path: torch.save({1: torch.zeros(1)}, path), "holds no state dict"),
    "itself": (save_itself, "holds no state dict"),
    "no values": (without_values, "122 without finite numbers (first: conv1.weight)"),
}  # fmt: skip


@pytest.mark.fault(
    "Archives and checkpoints",
    "weights that hold code, or are no weights at all",
    "one line; no code of the file is run",
)
@pytest.mark.filterwarnings("error", "ignore:.*deprecated:FutureWarning")
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_is_no_state_dict_is_refused_in_one_line_and_not_run(tmp_path, capsys, kind):
    write, reason = NO_WEIGHTS[kind]
    write(tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"^weights: .*w\.pth'") as refused:
        load_weights(build("resnet18", 5), tmp_path / "w.pth")
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)
    assert "code ran" not in capsys.readouterr().out


def test_weights_that_are_not_there_are_named():
    with pytest.raises(FileNotFoundError, match=r"weights: no file 'none\.pth'"):
        load_weights(build("resnet18", 5), "none.pth")
