"""The command as a person types it."""

import json

import pandas as pd
import pytest
import torch

from dogs_accel.cli import main
from dogs_accel.cost.model_cost import ModelCost
from dogs_accel.cost.run import named_models, own_num_classes
from dogs_accel.models.specs import model_spec

SMALL = ["cost", "--image-size", "32", "--batch-size", "2", "--rounds", "1", "--device", "cpu"]


def test_the_tables_and_the_files(tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*SMALL, "--models", "resnet18, timm/vit_tiny_patch16_224", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("measuring 2 models with random weights; torchvision ")
    assert f" ({torch.get_num_threads()} thread" in lines[1]
    assert f", float32, torch {torch.__version__}, " in lines[1]
    heads = [line.split("  ")[0] for line in lines]
    resnet, vit = (line.split() for line in lines[4:6])
    assert resnet[:5] == ["ResNet-18", "32", "1,000", "11,689,512", "46.76"]
    assert float(resnet[6]) == pytest.approx(2 * float(resnet[5]), abs=0.002)
    assert vit[0] == "vit_tiny_patch16_224"
    assert heads[8:10] == ["ResNet-18", "vit_tiny_patch16_224"]
    assert len({len(line) for line in lines[3:6]}) == len({len(line) for line in lines[7:10]}) == 1
    assert any("papers and torchvision often print GMACs and call them FLOPs" in line for line in lines)
    assert max(map(len, lines[:-2])) <= 120
    content, table = json.loads((out / "cost.json").read_text()), pd.read_csv(out / "cost.csv")
    costs = [ModelCost.from_json(each) for each in content["models"]]
    assert table["parameters"].tolist() == [cost.parameters for cost in costs] == [11_689_512, 5_680_552]
    assert table["one_image_ms_median"].tolist() == pytest.approx([cost.one_image_ms.median for cost in costs])
    assert content["environment"]["packages"]["torch"] is not None


def test_json_alone_is_printed_for_programs(capsys):
    assert main([*SMALL, "--models", "resnet18", "--num-classes", "37", "--amp", "bf16", "--json"]) == 0
    [cost] = json.loads(capsys.readouterr().out)["models"]
    assert (cost["num_classes"], cost["parameters"], cost["image_size"]) == (37, 11_689_512 - 963 * 513, 32)
    assert cost["flops"] == 2 * cost["macs"]
    assert cost["precision"] == "bfloat16 autocast"
    assert cost["one_image_ms"]["rounds"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", " , "], "models: got ' , ', expected names such as resnet50,"),
        (["--models", "resnet19"], "models: got 'resnet19', expected a classifier of torchvision"),
        (["--models", "resnet18", "--amp", "fp16"], "amp: fp16 needs a CUDA device"),
        (["--models", "resnet18", "--rounds", "0"], "--rounds: got '0', expected an integer >= 1"),
    ],
)
def test_what_is_wrong_is_one_line_before_the_work(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*SMALL, *arguments])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith("dogs-accel cost: error: ")
    assert words in line
    assert printed.out == ""


@pytest.mark.fault(
    "Machine and environment",
    "`cost` with a batch that does not fit the memory",
    "one line that names a batch that does",
)
def test_a_batch_that_does_not_fit_is_named_with_one_that_does(monkeypatch, capsys):
    from dogs_accel.cost import run

    measured = run.measure_costs

    def short_of_memory(models, *, batch_size, **settings):
        if batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return measured(models, batch_size=batch_size, **settings)

    monkeypatch.setattr(run, "measure_costs", short_of_memory)
    with pytest.raises(SystemExit) as stop:
        main([*SMALL, "--models", "resnet18", "--batch-size", "8"])
    assert stop.value.code == 2
    assert "in the cost of 1 model; --batch-size 2 does" in capsys.readouterr().err


def test_names_once_and_own_heads():
    assert [spec.name for spec in named_models("resnet18, resnet50,")] == ["resnet18", "resnet50"]
    with pytest.raises(ValueError, match=r"^models: got 'vit,cnn5,vit', which names a model twice, expected"):
        named_models("vit,cnn5,vit")
    assert own_num_classes(model_spec("resnet50")) == 1000
    assert own_num_classes(model_spec("timm/vit_tiny_patch16_224.augreg_in21k")) == 21843
