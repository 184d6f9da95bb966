"""State dicts of every wrapping, and files that are none: read, or refused in one line and never run."""

import argparse
import io
import json
import pickle
import struct
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from dogs_accel.models.build import build_model, build_pretrained
from dogs_accel.models.specs import model_spec
from dogs_accel.models.weights import load_weights, read_state
from tests.support.fuzzing import fuzz, value_or_line
from tests.support.random_models import build

SMALL_VIT = "vit:dim=32:depth=1:heads=2"


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
    donor = build(SMALL_VIT, 10, 32)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    built = build_model(model_spec(SMALL_VIT, 32), 7, str(tmp_path / "w.safetensors"), seed=9)
    assert built.note.endswith("without the head (file: 10 classes, here: 7)")
    own, given = built.model.state_dict(), donor.state_dict()
    assert own["heads.head.weight"].shape == (7, 32)
    assert all(torch.equal(own[key], given[key]) for key in own if not key.startswith("heads.head."))


@pytest.mark.parametrize(("head", "said"), [({}, "no"), ({"fc.weight": torch.zeros(())}, "0")])
def test_a_file_without_a_head_says_so(tmp_path, head, said):
    state = {key: value for key, value in build("resnet18", 5).state_dict().items() if not key.startswith("fc.")}
    torch.save(state | head, tmp_path / "w.pth")
    model = build("resnet18", 5)
    assert load_weights(model, tmp_path / "w.pth").endswith(f", without the head (file: {said} classes, here: 5)")
    assert torch.equal(model.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [
        ("resnet18", "resnet18:head=mlp", "(file: 5 classes, here: 7 behind 1 hidden layer)"),
        ("resnet18:head=custom", "resnet18", "(file: 5 classes behind 2 hidden layers, here: 7)"),
        ("resnet18:head=64", "resnet18:head=32", "(file: 5 classes behind 1 hidden layer, here: 7 behind 1 hidden "
         "layer)"),
    ],
)  # fmt: skip
def test_a_head_of_other_layers_is_left_out(tmp_path, given, name, said):
    state = build(given, 5).state_dict()
    torch.save(state, tmp_path / "w.pth")
    built = build_model(model_spec(name), 7, str(tmp_path / "w.pth"))
    assert built.note.endswith(f"w.pth, without the head {said}")
    own = built.model.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own if not key.startswith("fc."))


def test_a_head_of_the_same_layers_is_taken(tmp_path):
    state = build("resnet18:head=16", 5).state_dict()
    torch.save(state, tmp_path / "w.pth")
    built = build_model(model_spec("resnet18:head=16"), 5, str(tmp_path / "w.pth"), seed=3)
    assert built.note.endswith("w.pth")
    assert all(torch.equal(value, state[key]) for key, value in built.model.state_dict().items())
    assert build_pretrained(model_spec("resnet18:head=16"), str(tmp_path / "w.pth")).model.fc[3].out_features == 5


@pytest.mark.fault(
    "Archives and checkpoints",
    "weights of a network's features alone, with or without the name of that part",
    "all but the head is loaded, and the run says so",
)
def test_real_features_without_a_head_load_into_torchvisions_mobilenet_v2(shared_data, tmp_path):
    path = shared_data / "weights" / "mobilenet_v2_features.pth"
    built = build_model(model_spec("mobilenet_v2"), 30, str(path))
    assert built.note == f"mobilenet_v2: weights of {path}, without the head (file: no classes, here: 30)"
    given, own = torch.load(path), built.model.state_dict()
    assert given.keys() | {"classifier.1.weight", "classifier.1.bias"} == own.keys()
    assert all(torch.equal(own[key], value) for key, value in given.items())
    # As model.features.state_dict() has them.
    torch.save({key.removeprefix("features."): value for key, value in given.items()}, tmp_path / "w.pth")
    built = build_model(model_spec("mobilenet_v2"), 30, str(tmp_path / "w.pth"))
    assert built.note.endswith("w.pth (the part features), without the head (file: no classes, here: 30)")
    assert all(torch.equal(built.model.state_dict()[key], value) for key, value in given.items())


def test_features_alone_are_too_few_where_more_than_the_head_is_missing(tmp_path):
    """VGG's two dense layers of 4,096 are pretrained, so they would stay at random where the backbone is frozen."""
    with torch.device("meta"):
        keys = [key for key in build("vgg11").state_dict() if key.startswith("features.")]
        model = build("vgg11")
    state = {key: torch.zeros(1) for key in keys}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not fit the model: 4 missing \(first: classifier\.0\.bias\)"):
        load_weights(model, tmp_path / "w.pth")


def test_auxiliary_classifiers_of_a_file_are_left_out(tmp_path):
    spec = model_spec("googlenet", 32)
    donor = build_model(spec, 5, "none").model.state_dict()
    torch.save(donor | {"aux1.fc2.weight": torch.ones(5, 3), "aux2.fc2.bias": torch.ones(5)}, tmp_path / "w.pth")
    built = build_model(spec, 5, str(tmp_path / "w.pth"), seed=3)
    assert built.note.endswith("w.pth, without 2 entries of auxiliary classifiers")
    assert torch.equal(built.model.fc.weight, donor["fc.weight"])


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
        ": 1 missing (first: conv1.weight), 1 left over (first: surplus), 1 of another shape (first: bn1.weight, "
        "(3,) in the file and (64,) here), 1 without finite numbers (first: bn1.bias)"
    )


def test_a_head_that_differs_in_more_than_its_classes_does_not_fit(tmp_path):
    state = build("resnet18", 5).state_dict()
    for other in (torch.zeros(5, 7), torch.tensor(1.0)):
        torch.save(state | {"fc.weight": other}, tmp_path / "w.pth")
        with pytest.raises(
            ValueError, match=r"1 of another shape \(first: fc\.weight, \(.*\) in the file and \(5, 512\) here"
        ):
            load_weights(build("resnet18", 5), tmp_path / "w.pth")


def test_a_file_is_known_by_its_content_whatever_its_ending(tmp_path):
    state = build("resnet18", 5).state_dict()
    torch.save(state, tmp_path / "w.safetensors")
    save_file(state, tmp_path / "w.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "w.pth", "old.pth"):
        found, _ = read_state(tmp_path / name, state)
        assert all(torch.equal(found[key], state[key]) for key in state)


class _Surprise:
    def __reduce__(self):
        return (print, ("code ran",))


def saved(content, *, old=False):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def safetensors(header, size=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if size is None else size) + header + bytes(12)


def archive(content, *, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as parts:
        for name, part in content.items():
            parts.writestr(name, part)
    return file.getvalue()


def bomb():
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(1 << 20)}))) as parts:
        return archive({name: parts.read(name) for name in parts.namelist()}, compression=zipfile.ZIP_DEFLATED)


WHOLE = saved({"a": torch.ones(3), "b": torch.zeros(2, 2)})
CODE = r"it holds (an object of [\w.]+|something else), which could run code; only tensors, numbers and text are read"
A = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
NOT_READ = {
    "code": (saved({"x": _Surprise()}), CODE),
    "code-old": (saved({"x": _Surprise()}, old=True), CODE),
    "pickle": (pickle.dumps(_Surprise()), CODE),
    "model": (
        saved(torch.nn.Linear(2, 2)),
        r"it holds an object of torch\.nn\.modules\.linear\.Linear, which could run",
    ),
    "empty": (b"", "it is empty"),
    "text": (b"hello world", r"it is none of torch\.save's files"),
    "page": (b"<!DOCTYPE html><html>404</html>", r"it is none of torch\.save's files"),
    "zip": (archive({"a/hello.txt": b"x"}), r"it is a zip archive, but none of torch\.save's"),
    "script": (archive({"a/data.pkl": b"", "a/constants.pkl": b""}), "it is a TorchScript program, expected a state"),
    "cut": (WHOLE[: len(WHOLE) // 2], "damaged: File is not a zip file"),
    "cut-old": (saved({"a": torch.ones(3)}, old=True)[:200], "it is damaged or cut off"),
    "bomb": (bomb(), r"its parts are compressed, which torch\.save does not do"),
    "huge-header": (safetensors({"a": A}, 1 << 60), "header too large"),
    "long-header": (safetensors({"a": A}, 1 << 20), "header length|header too"),
    "offsets": (safetensors({"a": A | {"data_offsets": [0, 1 << 40]}}), "offset"),
    "hole": (safetensors({"a": A | {"shape": [1], "data_offsets": [8, 12]}}), "offset"),
    "shape": (safetensors({"a": A | {"shape": [1 << 40, 1 << 40]}}), "overflow"),
    "kind": (safetensors({"a": A | {"dtype": "Q9"}}), "unknown variant"),
    "json": (safetensors(b'{"a":'), "invalid JSON"),
}
ITSELF = {"x": 3}
ITSELF["model"] = ITSELF
NO_WEIGHTS = {
    "number": 3, "list": [torch.ones(2)], "a number by name": {"x": 3}, "numbered": {1: torch.ones(2)},
    "itself": ITSELF, "sparse": {"a": torch.eye(3).to_sparse()}, "complex": {"a": torch.ones(2, dtype=torch.complex64)},
}  # fmt: skip


@pytest.mark.fault(
    "Archives and checkpoints",
    "--weights with a file that has code in it, is of another kind, damaged, cut off or a bomb",
    "one line with the file and the reason; nothing in it is run",
)
@pytest.mark.parametrize("name", NOT_READ)
def test_a_file_that_is_no_state_dict_is_refused_and_not_run(name, tmp_path, capsys):
    content, reason = NOT_READ[name]
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights: cannot read '.*w\.pth' as a state dict \(.*{reason}") as caught:
        read_state(tmp_path / "w.pth", ())
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's own advice to run it
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_is_in_a_file_must_be_tensors_by_name(name, tmp_path):
    torch.save(NO_WEIGHTS[name], tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"'.*w\.pth' holds no state dict, which is tensors by name$"):
        load_weights(build("resnet18", 5), tmp_path / "w.pth")


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"weights: no file 'none\.pth'"):
        load_weights(build("resnet18", 5), "none.pth")


@pytest.mark.filterwarnings("ignore")
@fuzz(80)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    whole = data.draw(st.sampled_from([WHOLE, saved({"a": torch.ones(3)}, old=True), safetensors({"a": A})]))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of the start is what a reader goes by.
        content[data.draw(st.integers(0, min(700, len(content)) - 1) | st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    state, line = value_or_line(lambda: read_state(path, ("a", "b")))
    if state is None:
        assert line.startswith(f"weights: {'cannot read ' * ('cannot' in line)}{str(path)!r} ")
        assert len(line) < len(str(path)) + 500
