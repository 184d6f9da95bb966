"""What a command line may say, and the one line that says what is wrong with it."""

import pytest

from dogs_accel import benchmark, cli
from dogs_accel.experiment.settings.files import settings_of
from dogs_accel.runtime.arguments import as_typed, did_you_mean, nearest


def refusal(main, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    [line] = said.err.splitlines()
    return line.partition(": error: ")[2].removeprefix("argument ")


@pytest.mark.fault(
    "Command line", "a number that is none, or too large to be meant", "one line, before anything is read"
)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "²"], "--epochs: got '²', expected an integer >= 1"),
        (["--epochs", "٣"], "--epochs: got '٣', expected an integer >= 1"),
        (["--seed", "1_0"], "--seed: got '1_0', expected an integer >= 0"),
        (["--epochs", "9" * 5000], f"--epochs: got '{'9' * 40}...', expected an integer >= 1"),
        (["--batch-size", "1" + "0" * 30], f"--batch-size: got '1{'0' * 30}', expected an integer up to 2,147,483,647"),
        (["--seed", str(2**64)], f"--seed: got '{2**64}', expected an integer up to 2,147,483,647"),
        (["--seeds", "100000000"], "seeds: got 100000000, expected 1 to 1,000"),
        (["--image-size", "100000"], "image_size: got 100000, expected at most 14,336 px"),
        (["--val-ratio", "0,15"], "--val-ratio: got '0,15', expected a number between 0 and 1, both excluded"),
        (["--val-ratio", "nan"], "--val-ratio: got 'nan', expected a number between 0 and 1, both excluded"),
        (["--test-ratio", "20"], "--test-ratio: got '20', expected a number between 0 and 1, both excluded"),
        (
            ["--families", f"resnet18={'x' * 65}"],
            f"families: got '{'x' * 65}', expected a label of up to 64 letters, digits, - and _",
        ),
        (["--modles", "resnet18"], "unrecognized arguments: --modles resnet18 (did you mean '--models'?)"),
        (["--epoch=3", "--sed=1"], "unrecognized arguments: --sed=1 (did you mean '--seed'?)"),
        (["resnet18"], "unrecognized arguments: resnet18"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(arguments, message, capsys):
    assert refusal(benchmark.main, arguments, capsys) == message


@pytest.mark.fault(
    "Command line", 'a path that is empty, as "$DATA" is where it was never set',
    "refused; it means neither generated pictures nor the current folder",
)  # fmt: skip
@pytest.mark.parametrize("flag", ["--data", "--out", "--store", "--weights", "--resume"])
def test_an_empty_path_is_refused(flag, capsys):
    assert refusal(benchmark.main, [f"{flag}="], capsys) == f"{flag}: got '', expected a path"
    assert refusal(benchmark.main, [flag, ""], capsys) == f"{flag}: got '', expected a path"


def test_no_path_has_a_zero_in_it():
    with pytest.raises(ValueError, match=r"^a\.json: data: got 'a\\x00b', expected a path$"):
        settings_of({"data": "a\0b"}, "a.json")


def test_so_it_is_by_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class").mkdir()
    for arguments in (["metadata", "--data="], ["metadata", "--data=.", "--out="], ["predict", "--run=."], ["report"]):
        more = [""] if arguments[0] in ("predict", "report") else []
        assert refusal(cli.main, [*arguments, *more], capsys).endswith(": got '', expected a path")
    assert [path.name for path in tmp_path.iterdir()] == ["class"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["resnet50", "vit_b_16"], "resnet50,vit_b_16"),
        ({"full": [4], "staged": (1, 3)}, "full=4,staged=1+3"),
        ({"": [2]}, "2"),
        ({"resnet50": "residual"}, "resnet50=residual"),
        ({"lr": 3e-4, "groups": ["layer4", "fc"], "nesterov": False}, "lr=0.0003,groups=layer4+fc,nesterov=false"),
        (True, "yes"),
        (None, "none"),
        ([], "none"),
        (0.15, "0.15"),
        ("a 'b'", "a 'b'"),
    ],
)  # fmt: skip
def test_a_setting_is_written_as_it_is_typed(value, expected):
    assert as_typed(value) == expected


def test_the_nearest_name_is_found_in_other_cases_of_letters_too():
    known = ["resnet50", "vit_b_16", "Caltech"]
    assert nearest("RESNET50", known) == "resnet50"
    assert nearest("ViT-B-16", known) == "vit_b_16"
    assert nearest("caltech", known) == "Caltech"
    assert nearest("beetle", known) is None
    assert did_you_mean("RESNET50", known) == " (did you mean 'resnet50'?)"
