"""Names of models as they are typed: NAME[:FIELD=VALUE]..., and what each field may be.

Everything here is known without torch, so that a name can be checked before anything is imported for it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dogs_accel.runtime.arguments import did_you_mean

ACTIVATIONS = ("relu", "gelu", "silu", "mish", "leaky_relu")
_MOST = 1_000_000
"""Of every number: a layer as wide takes more memory than there is."""
_MOST_LISTED = 8
NUM_BLOCKS = 5
"""Of a cnn5."""


def _field(default: Any, read: Callable[[str], Any], help: str) -> Any:
    """Declare a field: how its text is read, which raises ValueError with what was expected, and what it says."""
    return dataclasses.field(default=default, metadata={"read": read, "help": help})


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}{did_you_mean(text, choices)}")
        return text

    return read


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= _MOST:
        raise ValueError(f"an integer from 1 to {_MOST:,}")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split("+")
    if len(parts) > _MOST_LISTED:
        raise ValueError(f"at most {_MOST_LISTED} integers")
    return tuple(map(_count, parts))


_MOST_KERNEL_PX = 31
"""As large as the largest of known networks."""


def _sides(text: str) -> tuple[int, ...]:
    sides = _counts(text)
    if any(side % 2 == 0 for side in sides):
        raise ValueError("odd integers, since with a padding of half of it an even kernel changes the size of the map")
    if any(side > _MOST_KERNEL_PX for side in sides):
        raise ValueError(f"at most {_MOST_KERNEL_PX} px")
    return sides


def _drop_share(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text) or not 0 <= float(text) < 1:
        raise ValueError("a number from 0 to 1, 1 excluded")
    return float(text)


_NAMED_HEADS: Mapping[str, tuple[tuple[int, ...], float]] = {
    "linear": ((), 0.0),
    "mlp": ((512,), 0.5),
    "custom": ((1024, 512), 0.3),
}
"""Widths of the hidden layers, and the dropout behind each."""


def _head(text: str) -> str | tuple[int, ...]:
    if text in _NAMED_HEADS:
        return text
    try:
        return _counts(text)
    except ValueError as error:
        near = did_you_mean(text, _NAMED_HEADS)
        raise ValueError(f"{', '.join(_NAMED_HEADS)} or the widths of hidden layers such as 1024+512{near}") from error


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Fields of every model: what takes the place of its last layer."""

    head: str | tuple[int, ...] = _field(
        "linear", _head, "linear, mlp (512 with dropout 0.5), custom (1024+512 with dropout 0.3), or the widths of "
        "hidden layers"
    )  # fmt: skip
    head_dropout: float | None = _field(
        None, _drop_share, "dropout before the last layer, behind each hidden one"
    )  # fmt: skip

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers, each with a ReLU and the dropout behind it."""
        return _NAMED_HEADS[self.head][0] if isinstance(self.head, str) else self.head

    @property
    def dropout(self) -> float:
        """Share that is dropped before the last layer, and behind each hidden one."""
        if self.head_dropout is not None:
            return self.head_dropout
        return _NAMED_HEADS[self.head][1] if isinstance(self.head, str) else 0.0


@dataclass(frozen=True, kw_only=True)
class Cnn5Options:
    """Fields of cnn5: five blocks of a convolution, an activation and a pooling, then two dense layers."""

    filters: tuple[int, ...] = _field((32,), _counts, "of the first block, or of each of the five")
    growth: str = _field("same", _one_of("same", "double", "half"), "filters of a block, from those of the one before")
    kernel: tuple[int, ...] = _field((3,), _sides, "side of the kernels, odd: one for all, or one a block")
    activation: str = _field("relu", _one_of(*ACTIVATIONS), "of the blocks")
    norm: str = _field("none", _one_of("none", "batch"), "BatchNorm before the activation, or none")
    dense: int = _field(256, _count, "width of the dense layer before the output")
    dense_activation: str = _field("none", _one_of("none", *ACTIVATIONS), "behind the dense layer")
    dropout: float = _field(0.0, _drop_share, "between the dense layer and the output")

    def __post_init__(self) -> None:
        for name in ("filters", "kernel"):
            if len(getattr(self, name)) not in (1, NUM_BLOCKS):
                raise ValueError(f"{name}: got {_shown(getattr(self, name))}, expected 1 or {NUM_BLOCKS} numbers")
        if len(self.filters) == NUM_BLOCKS and self.growth != "same":
            raise ValueError(f"growth: got {self.growth} with filters={_shown(self.filters)}, expected one number")
        if not all(1 <= each <= _MOST for each in self.block_filters):
            least = 2 ** (NUM_BLOCKS - 1)
            expected = f"{least} or more" if self.growth == "half" else f"at most {_MOST // least:,}"
            raise ValueError(f"filters: got {_shown(self.filters)} with growth={self.growth}, expected {expected}")

    @property
    def block_filters(self) -> tuple[int, ...]:
        """Filters of each block."""
        if len(self.filters) == NUM_BLOCKS:
            return self.filters
        factor = {"same": 1.0, "double": 2.0, "half": 0.5}[self.growth]
        return tuple(math.floor(self.filters[0] * factor**block) for block in range(NUM_BLOCKS))

    @property
    def block_kernels(self) -> tuple[int, ...]:
        """Side of each block's kernel."""
        return self.kernel * (NUM_BLOCKS // len(self.kernel))


@dataclass(frozen=True, kw_only=True)
class VitOptions:
    """Fields of vit; the defaults are those of ViT-B/16."""

    patch: int = _field(16, _count, "side of a patch in px")
    dim: int = _field(768, _count, "width of a token")
    depth: int = _field(12, _count, "number of layers")
    heads: int = _field(12, _count, "attention heads of a layer, a divisor of dim")
    mlp: int = _field(4, _count, "width of a layer's MLP, as a multiple of dim")
    dropout: float = _field(0.1, _drop_share, "of the tokens, the attention and the MLPs in training")

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"heads: got {self.heads} with dim={self.dim}, expected a divisor of dim")


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Fields of resnet18_cifar: none of its own."""


NetworkOptions = Cnn5Options | VitOptions | NoOptions
NETWORKS: Mapping[str, type[NetworkOptions]] = {"cnn5": Cnn5Options, "vit": VitOptions, "resnet18_cifar": NoOptions}
"""The networks of this project, by the names that are typed."""


@dataclass(frozen=True)
class ModelName:
    """A name with its fields; as text in one order, without the fields at their default."""

    base: str
    """What stands before the first colon: resnet50, timm/mixer_b16_224, cnn5."""
    head: HeadOptions
    network: NetworkOptions

    @property
    def given(self) -> dict[str, str]:
        """The fields that are not at their default, as text: those of the network, then those of the head."""
        return {
            field.name: _shown(getattr(options, field.name))
            for options in (self.network, self.head)
            for field in dataclasses.fields(options)
            if getattr(options, field.name) != field.default
        }

    def __str__(self) -> str:
        return ":".join([self.base, *(f"{name}={value}" for name, value in self.given.items())])

    def with_fields(self, label: str) -> str:
        """Name it for people by a label of its base, such as "ResNet-50 (head=mlp)"."""
        fields = ", ".join(f"{name}={value}" for name, value in self.given.items())
        return f"{label} ({fields})" if fields else label

    def slug(self, base: str) -> str:
        """Name it for files and folders by the slug of its base, such as resnet50_head-mlp."""
        text = "".join(f"_{name}-{value}" for name, value in self.given.items())
        return base + text.replace("+", "-").replace(".", "_")


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


def split_fields(setting: str, text: str, example: str) -> tuple[str, dict[str, str]]:
    """Split NAME[:FIELD=VALUE]... into the name and its fields, whatever they are called.

    Raises ValueError, which names the setting, for a part that is no FIELD=VALUE, such as the example, and for a field
    that comes twice.
    """
    base, *parts = text.split(":")
    values: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{setting}: got {part!r} in {text!r}, expected FIELD=VALUE such as {example}")
        if name in values:
            raise ValueError(f"{setting}: got {name} twice in {text!r}, expected each field once")
        values[name] = value
    return base, values


def parse_model_name(text: str) -> ModelName:
    """Read NAME[:FIELD=VALUE]..., in which numbers that belong together are joined by +.

    Raises ValueError, in one line, for a field that the model does not have, a value that the field cannot have, and
    values that contradict each other; the name before the first colon is not looked up.

    Example:
        >>> str(parse_model_name("cnn5:dropout=0.30:filters=32+48+64+64+96:head=linear"))
        'cnn5:filters=32+48+64+64+96:dropout=0.3'
    """
    base, given = split_fields("models", text, "head=mlp")
    kinds = (NETWORKS.get(base, NoOptions), HeadOptions)
    fields = {field.name: field for kind in kinds for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            near = did_you_mean(name, fields)
            raise ValueError(f"models: {base} has no field {name!r}, expected one of {', '.join(fields)}{near}")
        try:
            values[name] = fields[name].metadata["read"](value)
        except ValueError as error:
            raise ValueError(f"models: {name} of {base}: got {value!r}, expected {error}") from error
    try:
        network, head = (
            kind(**{name: value for name, value in values.items() if name in kind.__dataclass_fields__})
            for kind in kinds
        )
    except ValueError as error:
        raise ValueError(f"models: {base}: {error}") from error
    assert isinstance(head, HeadOptions)
    assert not isinstance(network, HeadOptions)
    if head.head_dropout == dataclasses.replace(head, head_dropout=None).dropout:
        head = dataclasses.replace(head, head_dropout=None)
    return ModelName(base, head, network)
