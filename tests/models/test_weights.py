import pytest
import torch
from safetensors.torch import save_file

from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec
from dogs_accel.models.weights import load_weights
from tests.support.random_models import build


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_weights_from_a_file(tmp_path, wrap):
    donor = build("resnet18", 10)
    torch.save(wrap(donor.state_dict()), tmp_path / "w.pth")
    built = build_model(model_spec("resnet18"), 10, str(tmp_path / "w.pth"), seed=9)
    assert all(
        torch.equal(a, b) for a, b in zip(donor.state_dict().values(), built.model.state_dict().values(), strict=True)
    )


def test_weights_of_another_head_load_all_but_the_head_and_say_so(tmp_path):
    donor = build("vit_b_16", 10, 32)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    built = build_model(model_spec("vit_b_16", 32), 7, str(tmp_path / "w.safetensors"), seed=9)
    assert built.note.endswith("without the head (file: 10 classes, here: 7)")
    own, given = built.model.state_dict(), donor.state_dict()
    assert own["heads.head.weight"].shape == (7, 768)
    assert all(torch.equal(own[key], given[key]) for key in own if not key.startswith("heads.head."))


def test_data_parallel_prefixes_and_missing_counters_are_no_obstacle(tmp_path):
    state = build("resnet18", 5).state_dict()
    state = {f"module.{key}": value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    model = build("resnet18", 5)
    load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.conv1.weight, state["module.conv1.weight"])


def test_weights_that_do_not_fit_are_refused_with_the_first_name(tmp_path):
    state = build("resnet18", 5).state_dict()
    del state["conv1.weight"]
    state["surplus"] = torch.zeros(1)
    state["bn1.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"1 missing \(first: conv1\.weight\), 1 left over \(first: surplus\), 1 of anoth"
    ):
        load_weights(build("resnet18", 5), tmp_path / "w.pth")


class _Surprise:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_file_that_is_no_state_dict_is_refused_and_not_run(tmp_path, capsys):
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"x": _Surprise()}, tmp_path / "code.pth")
    torch.save({"x": 3}, tmp_path / "number.pth")
    for name in ("text", "code", "number"):
        with pytest.raises(ValueError, match=rf"{name}\.pth"):
            load_weights(build("resnet18", 5), tmp_path / f"{name}.pth")
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"weights: no file 'none\.pth'"):
        load_weights(build("resnet18", 5), "none.pth")
