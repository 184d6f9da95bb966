"""The stages of networks: their sums against the whole, their fields against gradients, their times by a clock."""

import dataclasses
import json

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from dogs_accel.cli import main
from dogs_accel.models.architecture.figure import architecture_figure
from dogs_accel.models.architecture.receptive_field import ReceptiveField, following_fields
from dogs_accel.models.architecture.stages import find_stages, recording_outputs
from dogs_accel.models.architecture.table import (
    count_stages,
    describe_architecture,
    field_text,
    last_map,
    stages_of,
    with_times,
)
from dogs_accel.models.build import build_model
from dogs_accel.models.flops import count_macs
from dogs_accel.models.names import Cnn5Options
from dogs_accel.models.networks.cnn5 import cnn5_flops, cnn5_params
from dogs_accel.models.specs import model_spec
from tests.support.drawn_figures import stands_out


def on_meta(name, size):
    with torch.device("meta"):
        return build_model(model_spec(name, size), 7, "none").model.eval()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        ("vgg11", 64),
        ("swin_t", 64),
        ("timm/convnext_atto", 64),
        ("vit:dim=48:depth=2:heads=3:patch=8", 32),
    ],
)
def test_the_stages_add_up_to_the_model(name, size):
    spec = model_spec(name, size)
    counted = count_stages(spec, 7)
    assert counted.macs == count_macs(spec, 7)
    assert counted.parameters == sum(each.numel() for each in on_meta(name, size).parameters())
    assert min(stage.macs for stage in counted.stages) > 0
    assert counted.stages[-1].output == (7,)


def test_the_stages_of_a_resnet50():
    stages = count_stages(model_spec("resnet50"), 1000).stages
    assert [stage.name for stage in stages] == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert [stage.output for stage in stages] == [
        (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7), (1000,),
    ]  # fmt: skip
    assert [stage.kind for stage in stages[:2]] == ["Conv2d, BatchNorm2d, ReLU, MaxPool2d", "3 Bottleneck"]
    assert sum(stage.parameters for stage in stages) == 25_557_032  # torchvision's num_params
    # By hand: the window of 7 and that of 3 behind a stride of 2; then one 3 x 3 a block, whose step is doubled in the
    # first block of a stage.
    assert [field_text(stage.field) for stage in stages] == ["11", "35", "91", "267", "427", "a global pooling"]


def test_the_stages_of_a_cnn5_by_its_closed_forms():
    counted = count_stages(model_spec("cnn5"), 10)
    assert (counted.parameters, counted.flops) == (
        cnn5_params(Cnn5Options(), 10, 224),
        cnn5_flops(Cnn5Options(), 10, 224),
    )
    assert [stage.flops for stage in counted.stages] == [
        86_704_128, 231_211_008, 57_802_752, 14_450_688, 3_612_672, 802_816, 5_120,
    ]  # fmt: skip
    assert counted.stages[4].output == (32, 7, 7)  # and not what is flattened of it


def test_dense_layers_behind_the_maps_are_a_stage_of_their_own():
    stages = count_stages(model_spec("vgg11", 64), 7).stages
    assert [stage.name for stage in stages[-3:]] == ["features.18", "classifier.0", "classifier.6"]
    assert stages[-3].output[0] == 512
    assert stages[-2].output == (4096,)


def linear_where_positive(model):
    """Make every weight positive and every maximum a mean, so that each cell of a field has a gradient."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.ReLU6):
                setattr(parent, name, nn.ReLU())
    for parameter in model.parameters():
        parameter.data.fill_(1 / 64)
    return model.double().eval()


@pytest.mark.parametrize(
    ("name", "size", "stage"),
    [
        ("resnet18", 129, "layer2"),
        ("resnet18_cifar", 48, "layer2"),
        ("timm/tf_efficientnet_lite0", 80, "blocks.1"),  # pads to the bottom
        ("cnn5", 96, "blocks.3"),
        ("googlenet", 96, "inception3b"),
    ],
)
def test_a_field_is_where_the_gradient_of_a_cell_is(name, size, stage):
    model = linear_where_positive(build_model(model_spec(name, size), 7, "none").model)
    image = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    stages = find_stages(model, image)
    with recording_outputs(model, stages) as outputs, following_fields(image) as field_of:
        model(image)
    shown = last_map(outputs[stages.names.index(stage)]).tensor
    field = field_of(shown)
    assert field.cells == tuple(shown.shape[2:])
    for row, column in ((0, 0), (field.cells[0] // 2, field.cells[1] // 2 - 1), (field.cells[0] - 1, 0)):
        [gradient] = torch.autograd.grad(shown[0, :, row, column].sum(), image, retain_graph=True)
        rows, columns = gradient[0].abs().sum(dim=0).nonzero().T
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert field.box(row, column, size) == tuple(map(int, found))


@pytest.mark.parametrize(
    ("name", "size", "at", "why"),
    [
        ("vit:dim=48:depth=2:heads=3:patch=8", 32, 0, "8"),
        ("vit:dim=48:depth=2:heads=3:patch=8", 32, 1, "attention"),
        ("swin_t", 64, 1, "attention"),
        ("timm/mixer_s32_224", 224, 1, "a dense layer over the cells"),
        ("timm/mobilenetv3_small_050", 64, 2, "31+"),  # squeeze and excitation
        ("timm/resnet26d", 64, 1, "31"),
    ],
)
def test_where_there_is_no_field_the_reason_is_said(name, size, at, why):
    assert field_text(stages_of(on_meta(name, size), torch.zeros(1, 3, size, size, device="meta"))[at].field) == why


def test_a_box_ends_at_the_image():
    field = ReceptiveField(low=(-5, -3), high=(6, 8), step=(4, 4), cells=(8, 8))
    assert field.size == (11, 11)
    assert field.box(0, 1, 32) == (1, 0, 12, 6)
    assert field.box(7, 7, 32) == (25, 23, 32, 32)


class Taking(nn.Module):
    """Takes its time, by a clock of the test."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1))
        self.clock, self.seconds = clock, seconds

    def forward(self, x):
        self.clock[0] += self.seconds.pop(0) if isinstance(self.seconds, list) else self.seconds
        return x * self.weight


def test_times_are_medians_of_each_stage():
    clock = [0.0]
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Taking(clock, 0.3), Taking(clock, [9, 9]), nn.Flatten(), nn.Linear(144, 2)
    )
    images = torch.zeros(1, 3, 8, 8)
    stages = stages_of(model.eval(), images)
    counted = count_stages(model_spec("resnet18", 32), 7)
    counted = type(counted)(name="t", display="t", image_size=8, num_classes=2, stages=stages)
    model[2].seconds = [9, 9, 9, 0.1, 0.5, 0.2]  # one finds the stages, two warm up
    timed = with_times(counted, model, images, where="a clock", rounds=3, clock=lambda: clock[0])
    assert [stage.milliseconds for stage in timed.stages] == pytest.approx([0, 300, 200, 0])
    assert [timed.time_share(stage) for stage in timed.stages] == pytest.approx([0, 0.6, 0.4, 0])
    assert "time       median of 3 rounds of one image, on a clock" in describe_architecture(timed)


def test_equal_blocks_are_one_box():
    figure = architecture_figure(count_stages(model_spec("vit:dim=48:depth=5:heads=3:patch=8", 32), 7))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "encoder.layers.encoder_layer_0 to 3" in texts  # the last one has the norm too
    assert "4 times: EncoderBlock" in texts
    assert len(figure.axes) == 3  # boxes, parameters, FLOPs; without a measurement no time


def test_the_command_prints_and_writes_the_table(tmp_path, capsys):
    asked = ["architecture", "cnn5", "--image-size", "32", "--num-classes", "7", "--device", "cpu"]
    assert main([*asked, "--rounds", "1", "--out", str(tmp_path / "out")]) == 0
    assert "written:" in capsys.readouterr().out
    assert main([*asked, "--json", "--no-time"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / "architecture.json").read_text())
    assert written["time"]["rounds"] == 1
    assert sum(stage["time_share"] for stage in written["stages"]) == pytest.approx(1)
    assert printed["time"] is None
    assert printed["parameters"] == written["parameters"] == sum(stage["parameters"] for stage in written["stages"])
    table = pd.read_csv(tmp_path / "out" / "architecture.csv")
    assert table["flops"].sum() == written["flops"]
    assert table["field_px"].astype(str).tolist()[:5] == ["4", "10", "22", "46", "94"]
    assert Image.open(tmp_path / "out" / "architecture.png").width > 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cnn6"], "did you mean 'cnn5'"),
        (["cnn5", "--image-size", "16"], "cannot build cnn5 at 16 px"),
        (["cnn5", "--device", "tpu"], "device: got 'tpu'"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["architecture", *arguments])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_run_has_the_table_of_its_network_and_the_report_shows_it(tiny_results):
    folder = tiny_results / "cnn" / "resnet18_full"
    written = json.loads((folder / "architecture.json").read_text())
    cost = json.loads((folder / "resnet18_full_run_metadata.json").read_text())["cost"]
    assert (written["parameters"], written["flops"]) == (cost["parameters"], cost["flops"])
    assert written["time"]["rounds"] >= 5
    page = (tiny_results / "report.html").read_text(encoding="utf-8")
    assert page.count("stage by stage</summary>") == 1


def test_long_names_stay_in_the_picture_and_out_of_each_other():
    counted = count_stages(model_spec("vgg11", 64), 7)  # whose pooling at this size has a long reason for no field
    figure = architecture_figure(dataclasses.replace(counted, display="a model of a long name " * 8))
    assert stands_out(figure) == []
    boxes = {}
    for text in figure.axes[0].texts:
        if text.get_text():
            boxes.setdefault(round(text.get_position()[1], 2), []).append(text.get_window_extent())
    pairs = [pair for pair in boxes.values() if len(pair) == 2]
    assert len(pairs) > 10
    assert all(left.x1 < right.x0 for left, right in pairs)
