"""The cost of a model as it is recorded: counts, which hold everywhere, and times, which hold where they were taken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTES_OF_FLOAT32 = 4
_FEWEST_ROUNDS = 6
"""That an interval of the median with 95 % takes."""
_COUNTED = ("display", "parameters", "buffer_bytes", "macs", "peak_memory_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """How long a forward takes, to the end of the device's work."""

    median: float
    """Milliseconds, as the ends are."""
    low: float
    """Of the 95 % interval of the median, as `runtime.timing.median_interval` defines it."""
    high: float
    rounds: int

    @property
    def text(self) -> str:
        """Write the median, with three digits or so."""
        return self._written(self.median)

    @property
    def has_interval(self) -> bool:
        """Whether there were rounds enough for one."""
        return self.rounds >= _FEWEST_ROUNDS

    @property
    def interval_text(self) -> str:
        """Write the ends of the interval, with as many decimals as the median; of too few rounds that there is none."""
        if not self.has_interval:
            return "no interval"
        return f"{self._written(self.low)} to {self._written(self.high)}"

    def _written(self, milliseconds: float) -> str:
        return f"{milliseconds:,.{2 if self.median < 10 else 1}f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class CostSetting:
    """What was measured, and where: two costs with the same setting are of the same work."""

    model: str
    """Its name as typed."""
    image_size: int
    num_classes: int
    batch_size: int
    device: str
    """cpu or cuda."""
    device_name: str
    precision: str
    """Such as float32, or bfloat16 autocast, under which the weights stay float32."""
    num_threads: int
    """With which torch computes on a CPU."""
    channels_last: bool
    """Whether the weights of convolutions are laid out so; images always are, as the loaders give them."""
    torch: str
    """Its version."""

    @property
    def where(self) -> str:
        """Say on what it was measured, and how."""
        threads = f" ({self.num_threads} thread{'s' * (self.num_threads != 1)})" if self.device == "cpu" else ""
        return f"{self.device_name}{threads}, {self.precision}, torch {self.torch}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCost:
    """What a model costs in evaluation: one forward, without a gradient."""

    setting: CostSetting
    display: str
    """Name of the model as people have it."""
    parameters: int
    buffer_bytes: int
    """Of what is saved or kept with the weights and is not trained, such as the statistics of BatchNorm."""
    macs: int
    """Multiply-accumulates of one image, as `models.flops.count_macs` defines them."""
    one_image_ms: Latency
    batch_ms: Latency
    peak_memory_bytes: int
    """Weights, buffers, a batch, and what torch's allocator holds for its forward at most."""

    @property
    def megabytes(self) -> float:
        """The parameters as float32, in 10^6 bytes; buffers are not among them."""
        return _BYTES_OF_FLOAT32 * self.parameters / 1e6

    @property
    def flops(self) -> int:
        """Operations of one image: two a multiply-accumulate."""
        return 2 * self.macs

    @property
    def images_per_second(self) -> float:
        """Of a batch, by its median."""
        return 1e3 * self.setting.batch_size / self.batch_ms.median

    def as_json(self) -> dict[str, Any]:
        """Lay out the cost in one level, with what follows from it; latencies are a level of their own."""
        return {
            **dataclasses.asdict(self.setting),
            "display": self.display,
            "parameters": self.parameters,
            "megabytes": self.megabytes,
            "buffer_bytes": self.buffer_bytes,
            "macs": self.macs,
            "flops": self.flops,
            "one_image_ms": dataclasses.asdict(self.one_image_ms),
            "batch_ms": dataclasses.asdict(self.batch_ms),
            "images_per_second": self.images_per_second,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ModelCost:
        """Read what `as_json` laid out. Raises ValueError, which names it, where something is missing."""
        try:
            return cls(
                setting=_taken(CostSetting, content),
                one_image_ms=_taken(Latency, content["one_image_ms"]),
                batch_ms=_taken(Latency, content["batch_ms"]),
                **{name: content[name] for name in _COUNTED},
            )
        except (KeyError, TypeError) as error:
            shown = json.dumps(content, default=str)[:80]
            raise ValueError(f"cost: got {shown}, expected the cost of a model ({error!r})") from error


def _taken(kind: type[Any], content: Mapping[str, Any]) -> Any:
    """Make a dataclass of a mapping, of which other keys are left out."""
    return kind(**{each.name: content[each.name] for each in dataclasses.fields(kind)})
