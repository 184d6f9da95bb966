"""Models by name: torchvision's classifiers, timm's models and this project's, with a new head for the classes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
import torchvision
from torch import Tensor, nn

from dogs_accel.models.heads import head_names, with_new_head
from dogs_accel.models.names import NETWORKS, HeadOptions, ModelName, parse_model_name
from dogs_accel.models.networks import create_network
from dogs_accel.models.positions import fit_positions
from dogs_accel.models.specs import ModelSpec, model_spec, timm_facts, torchvision_weights
from dogs_accel.models.weights import load_weights, num_rows, read_state
from dogs_accel.runtime.out_of_memory import is_out_of_memory

_TRAINED_WITH_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Models that had classifiers halfway when they were trained, and how the entries of those begin."""


def create_resnet50(num_classes: int, weights: Any = None) -> nn.Module:
    """ResNet-50 with a new head: 23,753,912 parameters at 120 classes. weights: a torchvision weights entry."""
    return with_new_head(torchvision.models.resnet50(weights=weights), num_classes)


def create_vit_b16(num_classes: int, weights: Any = None, image_size: int = 224) -> nn.Module:
    """ViT-B/16 with a new head: 85,890,936 parameters at 120 classes and 224 px."""
    return with_new_head(_create_torchvision("vit_b_16", image_size, weights), num_classes)


def _create_torchvision(base: str, image_size: int, weights: Any = None) -> nn.Module:
    """Build a torchvision model with the head that it has there."""
    if base in _TRAINED_WITH_AUXILIARY:
        # Their weights are for images that they normalise once more. The classifiers halfway helped deep networks to
        # learn before there was BatchNorm; without them the model gives logits alone, as every other does.
        settings: dict[str, Any] = {"aux_logits": False, "transform_input": True, "init_weights": True}
    elif base.startswith("vit_"):
        settings = {"image_size": image_size}
    else:
        return torchvision.models.get_model(base, weights=weights)
    model = torchvision.models.get_model(base, **settings)
    if weights is not None:
        state = weights.get_state_dict(progress=True, check_hash=True)
        model.load_state_dict(fit_positions(model, _without_auxiliary(base, state))[0])
    return model


def _without_auxiliary(base: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    left_out = _TRAINED_WITH_AUXILIARY.get(base, ())
    return {key: value for key, value in state.items() if not key.startswith(left_out)} if left_out else state


@dataclass(frozen=True)
class BuiltModel:
    """A model and what became of the weights that were asked for."""

    model: nn.Module
    note: str
    """One line: where the weights come from and what was left out."""


def build_model(spec: ModelSpec, num_classes: int, weights: str = "imagenet", seed: int = 0) -> BuiltModel:
    """Build a model with a fresh head of num_classes outputs.

    weights: "imagenet" downloads the published weights, "none" starts at random (from the seed, as the head always
    does), anything else is a file of a state dict (.pth, .pt or .safetensors), whose head is left out where its
    size differs. Raises ValueError for a file that does not fit, OSError where a download fails.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = _create(spec, num_classes, pretrained=weights == "imagenet")
        except (URLError, OSError) as error:
            raise OSError(
                f"weights: cannot download the ImageNet weights of {spec.name} ({error}); "
                "give a file with --weights PATH, or start at random with --weights none"
            ) from error
    if weights == "imagenet":
        resampled = _resampled_tables(spec, model, num_classes)
        return BuiltModel(model, f"{spec.display}: ImageNet weights, new head for {num_classes} classes{resampled}")
    if weights == "none":
        return BuiltModel(model, f"{spec.display}: random weights")
    left_out = _TRAINED_WITH_AUXILIARY.get(spec.name.partition(":")[0], ())
    return BuiltModel(model, f"{spec.display}: {load_weights(model, weights, left_out)}")


def build_pretrained(spec: ModelSpec, weights: str = "imagenet") -> BuiltModel:
    """Build a model with the head that its weights were trained with.

    weights: "imagenet" downloads the published weights, which are for the model's own input size; anything else is a
    file of a state dict, which says how many classes there are. Raises ValueError for "none" or a file that does not
    fit, OSError where a download fails.
    """
    if weights == "none":
        raise ValueError("weights: got none, expected imagenet or a file: random weights say nothing")
    if weights != "imagenet":
        return build_model(spec, _num_classes_of_file(spec, weights), weights)
    try:
        with _float32_by_default():
            model = _create_pretrained(spec)
    except (URLError, OSError) as error:
        raise OSError(f"weights: cannot download the ImageNet weights of {spec.name} ({error})") from error
    return BuiltModel(model, f"{spec.display}: ImageNet weights")


def _create_pretrained(spec: ModelSpec) -> nn.Module:
    name = parse_model_name(spec.name)
    if name.head != HeadOptions():
        raise ValueError(f"models: got {spec.name!r}, expected it with its own head, with which it was trained")
    _check_has_weights(name)
    if name.base.startswith("timm/"):
        import timm

        return timm.create_model(name.base.removeprefix("timm/"), pretrained=True)
    return torchvision.models.get_model(name.base, weights=torchvision_weights(name.base))


def weights_to_download(spec: ModelSpec) -> str | None:
    """Name the published weights of a model that `build_model` would download, with their size where that is known.

    None where the files are here already, which torch and the Hugging Face hub keep, or nobody published any.
    """
    base = parse_model_name(spec.name).base
    if base in NETWORKS:
        return None
    if base.startswith("timm/"):
        return None if _has_timm_weights(base.removeprefix("timm/")) else base
    entry = torchvision_weights(base)
    return None if _is_in_torch_hub(entry.url) else f"{base} ({entry.meta['_file_size']:.0f} MB)"


def _has_timm_weights(timm_name: str) -> bool:
    """Whether timm need not download the weights of a model, be it that there are none."""
    import timm
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import PYTORCH_WEIGHTS_NAME, SAFETENSORS_SINGLE_FILE

    known = timm.get_pretrained_cfg(timm_name)
    if known is None or not known.has_weights or known.file:
        return True
    if known.hf_hub_id:
        repository, _, revision = known.hf_hub_id.partition("@")
        names = [known.hf_hub_filename] if known.hf_hub_filename else [SAFETENSORS_SINGLE_FILE, PYTORCH_WEIGHTS_NAME]
        return any(
            isinstance(try_to_load_from_cache(repository, name, revision=revision or None), str) for name in names
        )
    return isinstance(known.url, str) and _is_in_torch_hub(known.url)


def _is_in_torch_hub(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name).is_file()


def _check_has_weights(name: ModelName) -> None:
    if name.base in NETWORKS:
        raise ValueError(f"weights: got imagenet, expected none or a file: nobody published weights of {name.base}")


def _num_classes_of_file(spec: ModelSpec, path: str) -> int:
    model = _without_values(spec, 1)
    *_, head = head_names(model)
    own = model.state_dict()
    *_, weight = [key for key in own if key.startswith(f"{head}.") and key.endswith(".weight")]
    state, _ = read_state(path, own)
    if weight not in state or not (num_classes := num_rows(state[weight])):
        raise ValueError(f"weights: {path!r} holds no head {head!r} of {spec.name}")
    return num_classes


def _without_values(spec: ModelSpec, num_classes: int) -> nn.Module:
    """Build a model for its names and shapes."""
    try:
        with torch.device("meta"):
            return _create(spec, num_classes, pretrained=False)
    except NotImplementedError:
        return _create(spec, num_classes, pretrained=False)


def _resampled_tables(spec: ModelSpec, model: nn.Module, num_classes: int) -> str:
    """Say how many entries of a model are of another shape at its own size, for which its published weights are."""
    own = model_spec(spec.name)
    if own.image_size == spec.image_size:
        return ""
    there = _without_values(own, num_classes).state_dict()
    changed = [key for key, value in model.state_dict().items() if key in there and value.shape != there[key].shape]
    if not changed:
        return ""
    tables = "table" if len(changed) == 1 else f"{len(changed)} tables"
    return f", {tables} of positions resampled from {own.image_size} px"


def _create(spec: ModelSpec, num_classes: int, pretrained: bool) -> nn.Module:
    name = parse_model_name(spec.name)
    if pretrained:
        _check_has_weights(name)
    with _float32_by_default():
        return _create_named(name, spec, num_classes, pretrained)


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """Let modules have float32 parameters, whatever the program around has set for its own tensors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _create_named(name: ModelName, spec: ModelSpec, num_classes: int, pretrained: bool) -> nn.Module:
    try:
        if name.base.startswith("timm/"):
            return _create_timm(name, spec.image_size, num_classes, pretrained)
        if name.base in NETWORKS:
            model = create_network(name.network, num_classes, spec.image_size)
        else:
            model = _create_torchvision(
                name.base, spec.image_size, torchvision_weights(name.base) if pretrained else None
            )
        return with_new_head(model, num_classes, name.head)
    except NotImplementedError:  # of a tensor on the meta device whose values are read, as RegNets do
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = "there is no memory for it" if is_out_of_memory(error) else error
        raise ValueError(f"models: cannot build {spec.name} at {spec.image_size} px ({reason})") from error


def _create_timm(name: ModelName, image_size: int, num_classes: int, pretrained: bool) -> nn.Module:
    import timm

    timm_name = name.base.removeprefix("timm/")
    # Models that keep a table of positions are built for one input size; the others take any.
    size: dict[str, Any] = {"img_size": image_size} if image_size != timm_facts(timm_name).image_size else {}
    create = functools.partial(timm.create_model, timm_name, pretrained=pretrained, num_classes=num_classes)
    try:
        model = create(**size)
    except TypeError:
        if not size:
            raise
        model = create()
    if name.head != HeadOptions():
        return with_new_head(model, num_classes, name.head)
    # Some of timm's heads start so large that a short head-only phase does not get over it (0.89 against 0.93 of
    # validation accuracy on 30 classes), so every model here starts with torch's own initialisation.
    for head in head_names(model):
        for module in model.get_submodule(head).modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return model
