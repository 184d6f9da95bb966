import pytest
import torch
import torchvision
from torch import nn

from dogs_accel.models import flops
from dogs_accel.models.build import BuiltModel
from dogs_accel.models.flops import ModelFlops, count_flops, count_macs, forward_macs, peak_flops
from dogs_accel.models.specs import model_spec

TORCHVISION = torchvision.models


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet50", TORCHVISION.ResNet50_Weights.IMAGENET1K_V2),
        ("resnet18", TORCHVISION.ResNet18_Weights.IMAGENET1K_V1),
        ("vit_b_16", TORCHVISION.ViT_B_16_Weights.IMAGENET1K_V1),
    ],
)
def test_forward_is_twice_the_published_multiply_accumulates(name, weights):
    giga_macs = weights.meta["_ops"]
    counted = count_flops(model_spec(name), 1000, "full_finetune")
    assert counted.forward == pytest.approx(2e9 * giga_macs, rel=0.01)


def test_the_two_published_models_in_figures():
    assert count_flops(model_spec("resnet50"), 1000, "head_only").forward == pytest.approx(2 * 4.09e9, rel=0.001)
    assert count_flops(model_spec("vit_b_16"), 1000, "head_only").forward == pytest.approx(2 * 17.56e9, rel=0.001)


@pytest.mark.parametrize(("name", "num_features"), [("resnet50", 2048), ("vit_b_16", 768)])
def test_a_frozen_backbone_costs_no_backward(name, num_features):
    full, head = (count_flops(model_spec(name), 120, mode) for mode in ("full_finetune", "head_only"))
    assert head.forward == full.forward
    # The gradient of the head's weight alone: that of its input is nobody's.
    assert head.training == head.forward + 2 * num_features * 120
    # Twice the forward, less the gradient of the images.
    assert 2.95 * full.forward < full.training < 3 * full.forward


class Tiny(nn.Module):
    """Every kind of product: a convolution, one in groups, one transposed, attention, and a linear head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.fc = nn.Linear(4, 10)

    def forward(self, images):
        x = self.up(self.depthwise(self.stem(images)))
        tokens = x.flatten(2).transpose(1, 2)[:, None]
        return self.fc(nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(dim=(1, 2)))


def test_a_tiny_net_by_hand(monkeypatch):
    monkeypatch.setattr(flops, "build_model", lambda *_: BuiltModel(Tiny(), "tiny"))
    stem = 4 * 4 * 3 * 8 * 9  # multiply-accumulates of an image of 8 px
    depthwise = 4 * 4 * 8 * 9
    up = 4 * 4 * 8 * 4 * 4
    attention = 2 * 64 * 64 * 4
    head = 4 * 10
    forward = 2 * (stem + depthwise + up + attention + head)
    assert count_flops(model_spec("resnet18", 8), 10, "full_finetune") == ModelFlops(forward, 3 * forward - 2 * stem)
    assert count_flops(model_spec("resnet18", 8), 10, "head_only") == ModelFlops(forward, forward + 2 * head)


def test_depthwise_convolutions_cost_what_they_do():
    counted = count_flops(model_spec("timm/tf_efficientnet_lite0"), 1000, "full_finetune")
    assert counted.forward == pytest.approx(2 * 0.385e9, rel=0.01)
    assert 2.9 * counted.forward < counted.training < 3 * counted.forward


def test_a_model_that_reads_values_is_counted_on_the_cpu(monkeypatch):
    class Reading(Tiny):
        def forward(self, images):
            assert images.sum().item() == 0
            return nn.functional.dropout(super().forward(images), 0.5, self.training)

    before = torch.get_rng_state()
    monkeypatch.setattr(flops, "build_model", lambda *_: BuiltModel(Reading(), "reading"))
    on_cpu = count_flops(model_spec("resnet18", 8), 10, "full_finetune")
    monkeypatch.setattr(flops, "build_model", lambda *_: BuiltModel(Tiny(), "tiny"))
    assert on_cpu == count_flops(model_spec("resnet18", 8), 10, "full_finetune")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "name",
    ["alexnet", "vgg16", "mobilenet_v3_large", "efficientnet_b3", "inception_v3", "vit_b_16", "swin_t"],
)
def test_macs_are_those_that_torchvision_publishes(name):
    """In evaluation, where Inception has no auxiliary head; each at the size of its weights."""
    weights = TORCHVISION.get_model_weights(name).DEFAULT
    size = weights.transforms().crop_size[0]
    kwargs = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        model = TORCHVISION.get_model(name, **kwargs).eval()
        assert forward_macs(model, torch.zeros(2, 3, size, size)) == pytest.approx(
            2e9 * weights.meta["_ops"], rel=0.002
        )


@pytest.mark.parametrize(
    ("name", "image_size", "macs"),
    [("resnet50", 224, 4_089_184_256), ("resnet18", 224, 1_814_073_344), ("vit_b_16", 224, 17_563_828_224)],
)
def test_macs_to_the_last_one(name, image_size, macs):
    assert count_macs(model_spec(name, image_size), 1000) == macs
    # Only the head depends on the classes.
    num_features = {"resnet50": 2048, "resnet18": 512, "vit_b_16": 768}[name]
    assert count_macs(model_spec(name, image_size), 120) == macs - 880 * num_features


@pytest.mark.parametrize(("growth", "flops_at_224"), [(1, 394_589_184), (2, 1_949_242_368), (0.5, 210_070_080)])
def test_macs_of_a_plain_net_are_the_formula(growth, flops_at_224):
    """2 k^2 sum W^2 m' m + 2 D^2 m n + 20 n, of five 3 x 3 convolutions from 32 filters on, each halved, and 256 units:
    neither what normalises, nor activations, pooling and biases are counted."""
    widths = [round(32 * growth**block) for block in range(5)]
    layers: list[nn.Module] = []
    with torch.device("meta"):
        for inputs, outputs in zip([3, *widths], widths):  # noqa: B905  (the last width feeds the dense layer)
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.GELU(), nn.MaxPool2d(2)]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(49 * widths[-1], 256), nn.ReLU(), nn.Linear(256, 10))
        assert 2 * forward_macs(net.eval(), torch.zeros(1, 3, 224, 224)) == flops_at_224


def test_attention_is_counted_whatever_kernel_would_take_it():
    """On a CPU in evaluation torch has one operator for a whole layer, and one for an attention."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
    tokens = 10
    products = 4 * tokens * 64 * 64 + 2 * tokens * tokens * 64 + 2 * tokens * 64 * 128
    assert forward_macs(layer, torch.zeros(1, tokens, 64)) == products
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_part_costs_the_backward_of_what_is_above_it():
    spec = model_spec("resnet18", 8)
    head, full = (count_flops(spec, 10, mode) for mode in ("head_only", "full_finetune"))
    last = count_flops(spec, 10, "partial_finetune", 2)
    assert last == count_flops(spec, 10, "partial_finetune", groups=["layer4", "fc"])
    assert head.training < last.training < full.training


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode: got 'half', expected one of head_only, full_finetune, partial"):
        count_flops(model_spec("resnet18"), 10, "half")


CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "fp16", "bf16", "tf32", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 989.4, 494.7, 66.9),
        ("NVIDIA H100 PCIe", 756, 756, 378, 51.2),
        ("NVIDIA H100 NVL", 835.5, 835.5, 417.5, 60),
        ("NVIDIA H200", 989.4, 989.4, 494.7, 66.9),
        ("NVIDIA A100-SXM4-40GB", 312, 312, 156, 19.5),
        ("NVIDIA A100 80GB PCIe", 312, 312, 156, 19.5),
        ("NVIDIA L4", 121, 121, 60, 30.3),
        ("NVIDIA L40", 181.05, 181.05, 90.5, 90.5),
        ("NVIDIA L40S", 362.05, 362.05, 183, 91.6),
        # Neither has TF32 or bf16; float32 is then float32.
        ("Tesla V100-SXM2-16GB", 125, None, 15.7, 15.7),
        ("Tesla V100-PCIE-32GB", 112, None, 14, 14),
        ("Tesla T4", 65, None, 8.1, 8.1),
    ],
)
def test_peak_of_known_gpus(name, fp16, bf16, tf32, fp32, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(CUDA, torch.float16, tf32=True) == fp16 * 1e12
    assert peak_flops(CUDA, torch.bfloat16, tf32=False) == (None if bf16 is None else bf16 * 1e12)
    assert peak_flops(CUDA, None, tf32=True) == tf32 * 1e12
    assert peak_flops(CUDA, None, tf32=False) == fp32 * 1e12


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A10G", "GeForce GTX 1080", "L4000"])
def test_peak_of_another_gpu_is_unknown(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(CUDA, torch.bfloat16, tf32=True) is None


def test_peak_of_a_cpu_is_unknown():
    assert peak_flops(torch.device("cpu"), torch.bfloat16, tf32=False) is None
