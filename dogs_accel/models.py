"""The networks: torchvision's ResNets and ViTs and any timm model, with a new head for the classes at hand."""

from __future__ import annotations

import difflib
import functools
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pipelines.recipe import IMAGENET_MEAN, IMAGENET_STD

_TORCHVISION = {
    # name: (display name, family, weights as in the published runs)
    "resnet18": ("ResNet-18", "cnn", "IMAGENET1K_V1"),
    "resnet50": ("ResNet-50", "cnn", "IMAGENET1K_V2"),
    "vit_b_16": ("ViT-B/16", "vit", "IMAGENET1K_V1"),
}
_SLUGS = {"vit_b_16": "vit_b16"}
_NESTED_KEYS = ("state_dict", "model", "model_state_dict", "module")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What is known of a model before it is built."""

    name: str
    """As typed: resnet50, vit_b_16, timm/<name>."""
    display: str
    slug: str
    """For file and folder names."""
    family: str
    """cnn or vit."""
    image_size: int
    """Side of the input in px."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def model_spec(name: str, image_size: int | None = None) -> ModelSpec:
    """Look a model up by name; image_size None is the model's own.

    Mean and standard deviation are those that its published weights were trained with. Raises ValueError for a
    name that neither torchvision's table here nor timm has.
    """
    if name in _TORCHVISION:
        display, family, _ = _TORCHVISION[name]
        return ModelSpec(
            name=name,
            display=display,
            slug=_SLUGS.get(name, name),
            family=family,
            image_size=image_size or 224,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        )
    if name.startswith("timm/"):
        return _timm_spec(name, image_size)
    near = difflib.get_close_matches(name, _TORCHVISION, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"models: got {name!r}, expected one of {', '.join(_TORCHVISION)}, or timm/<name>{hint}")


def _timm_spec(name: str, image_size: int | None) -> ModelSpec:
    import timm

    timm_name = name.removeprefix("timm/")
    if not timm.is_model(timm_name.split(".")[0]):
        near = difflib.get_close_matches(timm_name, timm.list_models(), n=1)
        hint = f" (did you mean 'timm/{near[0]}'?)" if near else ""
        raise ValueError(f"models: timm has no {timm_name!r}{hint}")
    try:
        with torch.device("meta"):
            model = timm.create_model(timm_name)
    except RuntimeError as error:  # the part behind the dot names weights that do not exist
        raise ValueError(f"models: timm has no {timm_name!r} ({error})") from error
    data = timm.data.resolve_model_data_config(model)
    slug = timm_name.replace(".", "_")
    return ModelSpec(
        name=name,
        display=timm_name,
        slug=f"timm_{slug}" if slug in _TORCHVISION else slug,
        family="vit" if _has_attention(model) else "cnn",
        image_size=image_size or data["input_size"][-1],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _has_attention(model: nn.Module) -> bool:
    """Whether a timm model mixes positions by self-attention, which is what makes a transformer here."""
    return any(hasattr(module, "qkv") or type(module).__name__.endswith("Attention") for module in model.modules())


def create_resnet50(num_classes: int, weights: Any = None) -> nn.Module:
    """ResNet-50 with a new head: 23,753,912 parameters at 120 classes. weights: a torchvision weights entry."""
    return _with_new_head(torchvision.models.resnet50(weights=weights), num_classes)


def create_vit_b16(num_classes: int, weights: Any = None, image_size: int = 224) -> nn.Module:
    """ViT-B/16 with a new head: 85,890,936 parameters at 120 classes and 224 px."""
    model = torchvision.models.vit_b_16(image_size=image_size)
    if weights is not None:
        state = weights.get_state_dict(progress=True, check_hash=True)
        model.load_state_dict(_fit_positions(state, image_size))
    return _with_new_head(model, num_classes)


def _fit_positions(state: dict[str, torch.Tensor], image_size: int) -> dict[str, torch.Tensor]:
    """Resample torchvision's ViT position embedding to another input size."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    return interpolate_embeddings(image_size, 16, state, interpolation_mode="bicubic")


def head_names(model: nn.Module) -> list[str]:
    """Dotted names of the classifier's layers.

    fc in ResNets, heads.head in torchvision's ViTs, and what timm calls the classifier of its models; that of a
    distilled model has two layers.
    """
    get_classifier = getattr(model, "get_classifier", None)
    if not callable(get_classifier):
        return ["fc" if hasattr(model, "fc") else "heads.head"]
    classifier = get_classifier()
    layers = classifier if isinstance(classifier, tuple) else (classifier,)
    return [name for name, module in model.named_modules() if any(module is layer for layer in layers)]


def _with_new_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Replace the linear head of a torchvision model."""
    [name] = head_names(model)
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, leaf, nn.Linear(getattr(owner, leaf).in_features, num_classes))
    return model


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
        return BuiltModel(model, f"{spec.display}: ImageNet weights, new head for {num_classes} classes")
    if weights == "none":
        return BuiltModel(model, f"{spec.display}: random weights")
    return BuiltModel(model, f"{spec.display}: {load_weights(model, weights)}")


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
        model = _create_pretrained(spec)
    except (URLError, OSError) as error:
        raise OSError(f"weights: cannot download the ImageNet weights of {spec.name} ({error})") from error
    return BuiltModel(model, f"{spec.display}: ImageNet weights")


def _create_pretrained(spec: ModelSpec) -> nn.Module:
    if spec.name.startswith("timm/"):
        import timm

        return timm.create_model(spec.name.removeprefix("timm/"), pretrained=True)
    return torchvision.models.get_model(spec.name, weights=_TORCHVISION[spec.name][2])


def _num_classes_of_file(spec: ModelSpec, path: str) -> int:
    state = _read_state(path)
    with torch.device("meta"):
        *_, head = head_names(_create(spec, 1, pretrained=False))
    if f"{head}.weight" not in state:
        raise ValueError(f"weights: {path!r} holds no head {head!r} of {spec.name}")
    return len(state[f"{head}.weight"])


def _create(spec: ModelSpec, num_classes: int, pretrained: bool) -> nn.Module:
    try:
        if spec.name.startswith("timm/"):
            return _create_timm(spec, num_classes, pretrained)
        entry = torchvision.models.get_model_weights(spec.name)[_TORCHVISION[spec.name][2]] if pretrained else None
        if spec.name == "resnet50":
            return create_resnet50(num_classes, entry)
        if spec.name == "vit_b_16":
            return create_vit_b16(num_classes, entry, spec.image_size)
        return _with_new_head(torchvision.models.get_model(spec.name, weights=entry), num_classes)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"models: cannot build {spec.name} at {spec.image_size} px ({error})") from error


def _create_timm(spec: ModelSpec, num_classes: int, pretrained: bool) -> nn.Module:
    import timm

    # Models that keep a table of positions are built for one input size; the others take any.
    own_size = _timm_spec(spec.name, None).image_size
    size: dict[str, Any] = {"img_size": spec.image_size} if spec.image_size != own_size else {}
    create = functools.partial(
        timm.create_model, spec.name.removeprefix("timm/"), pretrained=pretrained, num_classes=num_classes
    )
    try:
        model = create(**size)
    except TypeError:
        if not size:
            raise
        model = create()
    # Some of timm's heads start so large that a short head-only phase does not get over it (0.89 against 0.93 of
    # validation accuracy on 30 breeds), so every model here starts with torch's own initialisation.
    for name in head_names(model):
        for module in model.get_submodule(name).modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return model


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Load a state dict from a file into a model; returns one line that says what was loaded.

    A head of another size is left out. Raises ValueError where anything else is missing, left over or of another
    shape, FileNotFoundError where there is no file.
    """
    state = _read_state(path)
    own = model.state_dict()
    head = tuple(f"{name}." for name in head_names(model))
    other_head = sorted(
        key for key in own if key.startswith(head) and key in state and state[key].shape != own[key].shape
    )
    note = f"weights of {os.fspath(path)}"
    if other_head:
        note += f", without the head (file: {len(state[other_head[0]])} classes, here: {len(own[other_head[0]])})"
        state = {key: value for key, value in state.items() if not key.startswith(head)}
        state |= {key: value for key, value in own.items() if key.startswith(head)}
    _check_fits(own, state, path)
    model.load_state_dict(state)
    return note


def _read_state(path: str | Path) -> dict[str, torch.Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights: no file {os.fspath(path)!r}; expected imagenet, none, or a file")
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        # None of the kinds that torch raises for a foreign file names the file.
        raise ValueError(f"weights: cannot read {os.fspath(path)!r} as a state dict ({error})") from error
    for key in _NESTED_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"weights: {os.fspath(path)!r} holds no state dict")
    return {key.removeprefix("module."): value for key, value in loaded.items()}


def _check_fits(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor], path: str | Path) -> None:
    missing, left_over = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    # Counters of batches seen are absent from old files and change nothing.
    for key in [key for key in missing if key.endswith("num_batches_tracked")]:
        state[key] = own[key]
        missing.remove(key)
    reshaped = [key for key in own if key in state and state[key].shape != own[key].shape]
    problems = [
        f"{len(keys)} {what} (first: {keys[0]})"
        for keys, what in ((missing, "missing"), (left_over, "left over"), (reshaped, "of another shape"))
        if keys
    ]
    if problems:
        raise ValueError(f"weights: {os.fspath(path)!r} does not fit the model: {', '.join(problems)}")


def set_trainable_stage(model: nn.Module, mode: str) -> None:
    """Freeze all but the head ("head_only") or nothing ("full_finetune")."""
    for parameter in model.parameters():
        parameter.requires_grad = mode == "full_finetune"
    for name in head_names(model):
        for parameter in model.get_submodule(name).parameters():
            parameter.requires_grad = True


def set_train_mode(model: nn.Module, bn_when_frozen: str = "eval") -> None:
    """Put a model into train mode, with BatchNorm of frozen parts in eval mode so that its statistics stay.

    bn_when_frozen "train" lets them drift, as the published runs did.
    """
    model.train()
    if bn_when_frozen == "train":
        return
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not own[0].requires_grad:
            module.eval()


def count_total_params(model: nn.Module) -> int:
    """Parameters of a model, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_trainable_params(model: nn.Module) -> int:
    """Parameters that the optimiser changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
