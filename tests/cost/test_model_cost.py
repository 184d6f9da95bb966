"""A cost as it is recorded: what follows from the counts, and what is read again."""

import json

import pytest

from dogs_accel.cost.model_cost import CostSetting, Latency, ModelCost


def cost_of(**changed):
    setting = CostSetting(
        model="resnet50", image_size=224, num_classes=1000, batch_size=32, device="cpu", device_name="a CPU",
        precision="float32", num_threads=2, channels_last=True, torch="2.15.0",
    )  # fmt: skip
    given = {
        "setting": setting, "display": "ResNet-50", "parameters": 25_557_032, "buffer_bytes": 212_672,
        "macs": 4_089_184_256, "one_image_ms": Latency(median=20.0, low=19.0, high=21.5, rounds=100),
        "batch_ms": Latency(median=400.0, low=390.0, high=420.0, rounds=7), "peak_memory_bytes": 200_000_000,
    }  # fmt: skip
    return ModelCost(**given | changed)


def test_what_follows_from_the_counts():
    cost = cost_of()
    assert cost.megabytes == 102.228128  # of 10^6 bytes
    assert cost.flops == 8_178_368_512
    assert cost.images_per_second == 80.0
    assert cost.setting.where == "a CPU (2 threads), float32, torch 2.15.0"


@pytest.mark.parametrize(
    ("parameters", "megabytes"),
    [(134_412_133, 537.65), (23_583_845, 94.34), (4_249_429, 17.00), (10_753_101, 43.01), (20_882_765, 83.53)],
)
def test_sizes_of_five_models_with_37_classes(parameters, megabytes):
    """VGG16, ResNet-50, MobileNetV3 Large, EfficientNet-B3 and Xception."""
    assert round(cost_of(parameters=parameters).megabytes, 2) == megabytes


def test_what_is_written_is_read_again():
    written = json.loads(json.dumps(cost_of().as_json()))
    assert ModelCost.from_json(written) == cost_of()
    assert ModelCost.from_json(written | {"of_another_version": 1}) == cost_of()


def test_the_layout():
    latency = ["median", "low", "high", "rounds"]
    content = cost_of().as_json()
    assert list(content) == [
        "model", "image_size", "num_classes", "batch_size", "device", "device_name", "precision", "num_threads",
        "channels_last", "torch", "display", "parameters", "megabytes", "buffer_bytes", "macs", "flops",
        "one_image_ms", "batch_ms", "images_per_second", "peak_memory_bytes",
    ]  # fmt: skip
    assert list(content["one_image_ms"]) == list(content["batch_ms"]) == latency


@pytest.mark.parametrize("broken", [{}, {"batch_ms": 3}, {"one_image_ms": {"median": 1.0}}])
def test_what_is_no_cost_is_named(broken):
    content = cost_of().as_json()
    with pytest.raises(ValueError, match=r"^cost: got \{.*, expected the cost of a model"):
        ModelCost.from_json(content | broken if broken else {})
