"""The space of a sweep: what may vary, between which values, and the settings of a run at one of its points."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import settings_of
from dogs_accel.experiment.settings.phase_settings import PHASE_FIELDS
from dogs_accel.experiment.settings.recipe_names import RECIPE_FIELDS, parse_recipe_name
from dogs_accel.models.names import NETWORKS, HeadOptions, parse_model_name, split_fields
from dogs_accel.runtime.arguments import did_you_mean

Value = bool | int | float | str
"""What a parameter can be: a number, true or false, or text, which is read as on the command line."""
Point = Mapping[str, Value]
"""A value of each parameter, by name."""
Kind = Literal["choice", "int", "float"]

_RANGE_KEYS = ("low", "high", "log", "step")
_SET, _RECIPE, _MODEL = "set.", "recipe.", "model."
_THE_SAME = {
    "data": "trials are compared on the same images",
    "seed": "it chooses the images of validation too",
    "val_ratio": "trials are compared on the same images",
    "test_ratio": "trials are compared on the same images",
    "on_bad_image": "trials are compared on the same images",
    "test": "no trial reads the test split",
    "tta": "no trial reads the test split",
    "preset": "the settings name it",
    "set": "the space names its fields, as in set.lr",
    "seeds": "a trial is one run",
    "runs": "a trial is one run",
    "families": "a trial is one run",
    "epochs": "set.epochs does, by the name of a phase or of all",
    "model_weights": "a trial is one run, whose weights are weights",
} | dict.fromkeys(("gpu", "device", "store", "out", "wandb", "resume", "dry_run", "profile"), "the command names it")
"""Fields of the settings that do not vary from trial to trial, and why."""
_CONFIG_FIELDS = {field.name: str(field.type) for field in dataclasses.fields(BenchmarkConfig)}
_MODEL_FIELDS: dict[str, Any] = {
    field.name: field.default for kind in (*NETWORKS.values(), HeadOptions) for field in dataclasses.fields(kind)
}
_MOST_CHOICES, _MOST_STEPS, _SHOWN = 1000, 1_000_000, 40
_TOLERANCE = 1e-9
"""Of a step, or of the width of a range: what rounding may add to a number that is meant to be the same."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One thing that varies.

    A "choice" has choices; an "int" and a "float" have low and high, both included, and either log, where their
    logarithm is what is uniform, or step, if any.
    """

    name: str
    kind: Kind
    choices: tuple[Value, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None

    @property
    def num_values(self) -> int | None:
        """How many values it can have; None where there is no end of them."""
        if self.kind == "choice":
            return len(self.choices)
        assert self.low is not None
        assert self.high is not None
        step = self._step
        return None if step is None else math.floor((self.high - self.low) / step + _TOLERANCE) + 1

    @property
    def values(self) -> tuple[Value, ...] | None:
        """All values that it can have, in their order; None where there is no end of them."""
        num = self.num_values
        return None if num is None else tuple(self.value_at(place) for place in range(num))

    def value_at(self, place: int) -> Value:
        """Give the value at a place of `values`. Raises ValueError where there is no end of them."""
        if self.kind == "choice":
            return self.choices[place]
        assert self.low is not None
        assert self.high is not None
        step = self._step
        if step is None:
            raise ValueError(f"space: {self.name} has no end of values, expected a step or choices")
        if self.kind == "int":
            return int(self.low) + place * int(step)
        # In decimals, as they were typed: three times 0.1 is 0.3, and no value lies beyond the high end.
        return min(float(Decimal(str(self.low)) + place * Decimal(str(step))), self.high)

    def snapped(self, value: Value) -> Value:
        """Give the value of its own that a number is but for rounding, and any other value as it is."""
        if self.kind != "float" or isinstance(value, (bool, str)):
            return value
        assert self.low is not None
        assert self.high is not None
        beside = _TOLERANCE * (self.high - self.low)
        if self.low - beside <= value <= self.high + beside:
            value = min(max(value, self.low), self.high)
            if self.step is not None:
                place = round((value - self.low) / self.step)
                own = self.value_at(place) if place < (self.num_values or 0) else value
                return own if isinstance(own, float) and abs(own - value) <= beside else value
        return value

    @property
    def _step(self) -> int | float | None:
        return self.step if self.step is not None or self.kind == "float" else 1

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values with which a setting is checked: every choice, or both ends of a range."""
        if self.kind == "choice":
            return self.choices
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    def read(self, text: str) -> Value:
        """Read a value as `value_text` writes it, or as somebody types it. Raises ValueError for none of its values."""
        if self.kind == "choice":
            for choice in self.choices:
                is_same_number = isinstance(choice, (int, float)) and not isinstance(choice, bool)
                if value_text(choice) == text or (is_same_number and _number(text) == choice):
                    return choice
            expected = ", ".join(map(value_text, self.choices))
            raise ValueError(
                f"{self.name}: got {text[:_SHOWN]!r}, expected one of {expected}"
                f"{did_you_mean(text, map(value_text, self.choices))}"
            )
        assert self.low is not None
        assert self.high is not None
        number = _number(text)
        if number is not None and self.kind == "float":
            number = float(self.snapped(number))
        if number is None or not self.low <= number <= self.high or (self.kind == "int" and number != int(number)):
            what = "an integer" if self.kind == "int" else "a number"
            raise ValueError(f"{self.name}: got {text[:_SHOWN]!r}, expected {what} from {self.low} to {self.high}")
        return int(number) if self.kind == "int" else number

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"{self.name} of {', '.join(map(value_text, self.choices))}"
        how = ", by its logarithm" if self.log else "" if self.step is None else f" in steps of {self.step}"
        return f"{self.name} from {self.low} to {self.high}{how}"

    def as_json(self) -> dict[str, Any]:
        """Lay it out for a file: a list of choices, or the ends of a range."""
        content: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.kind == "choice":
            return content | {"choices": list(self.choices)}
        return content | {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


@dataclass(frozen=True)
class Space:
    """What varies in a sweep, in the order in which it was said."""

    parameters: tuple[Parameter, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def num_points(self) -> int | None:
        """How many points there are; None where there is no end of them."""
        numbers = [parameter.num_values for parameter in self.parameters]
        return math.prod(each for each in numbers if each is not None) if None not in numbers else None

    def points(self) -> Iterator[dict[str, Value]]:
        """Go through every point, the last parameter fastest. Raises ValueError where there is no end of them."""
        self._require_finite()
        for values in itertools.product(*(parameter.values or () for parameter in self.parameters)):
            yield dict(zip(self.names, values, strict=True))

    def point(self, number: int) -> dict[str, Value]:
        """Give the point of a number, 0 to num_points - 1, in the order of `points`."""
        self._require_finite()
        found: dict[str, Value] = {}
        for parameter in reversed(self.parameters):
            number, place = divmod(number, parameter.num_values or 1)
            found[parameter.name] = parameter.value_at(place)
        return {name: found[name] for name in self.names}

    def snapped(self, point: Point) -> dict[str, Value]:
        """Give a point, or what is known of it, in the order of the parameters and with their own values."""
        return {each.name: each.snapped(point[each.name]) for each in self.parameters if each.name in point}

    def _require_finite(self) -> None:
        for parameter in self.parameters:
            if parameter.num_values is None:
                raise ValueError(
                    f"space: {parameter.name} has no end of values for the sampler grid, expected a step or choices"
                )

    def as_json(self) -> list[dict[str, Any]]:
        """Lay it out for a file."""
        return [parameter.as_json() for parameter in self.parameters]

    @classmethod
    def from_json(cls, content: Any) -> Space:
        """Read what `as_json` laid out. Raises ValueError for anything else."""
        try:
            return cls(tuple(Parameter(**each | {"choices": tuple(each.get("choices", ()))}) for each in content))
        except (TypeError, AttributeError) as error:
            raise ValueError(f"got {str(content)[:_SHOWN]!r}, expected the parameters of a space") from error


def value_text(value: Value) -> str:
    """Write a value as the command line and tables have it: true and false, numbers in full.

    Example:
        >>> value_text(True), value_text(3e-4), value_text(32), value_text("relu")
        ('true', '0.0003', '32', 'relu')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_space(content: Any, settings: Mapping[str, Any]) -> Space:
    """Read the table of a space and check every value of it against the settings that it varies.

    content: a list of choices, or {low, high, log, step}, by the names of `settings_at`, in which each dot may be a
    table instead. settings: those of a run, as `read_settings_file` gives them. Raises ValueError, which names the
    parameter, for an unknown one, an empty range, and a value that cannot be.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"space: got {str(content)[:_SHOWN]!r}, expected one or more parameters")
    space = Space(tuple(_parameter(name, value) for name, value in _flattened("", content)))
    if len(set(space.names)) < len(space.names):
        twice = next(name for name in space.names if space.names.count(name) > 1)
        raise ValueError(f"space: got {twice} twice, expected each parameter once")
    first = {parameter.name: parameter.ends[0] for parameter in space.parameters}
    for parameter in space.parameters:
        for value in parameter.ends:
            try:
                check_point(settings, first | {parameter.name: value})
            except ValueError as error:
                raise ValueError(f"space: {parameter.name} = {value_text(value)}: {error}") from error
    return space


def _flattened(where: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and not value.keys() & set(_RANGE_KEYS) and value:
            yield from _flattened(f"{where}{key}.", value)
        else:
            yield f"{where}{key}", value


def _parameter(name: str, content: Any) -> Parameter:
    numeric = _numeric_kind(name)
    if isinstance(content, (list, tuple)):
        return Parameter(name=name, kind="choice", choices=_choices(name, content, numeric))
    if not isinstance(content, Mapping):
        raise ValueError(
            f"space: {name}: got {str(content)[:_SHOWN]!r}, expected a list of choices or {{low, high, log, step}}"
        )
    return _range(name, content, numeric)


def _numeric_kind(name: str) -> Literal["int", "float"] | None:
    """Say which numbers a parameter takes, None where it takes none. Raises ValueError for an unknown name."""
    prefix, _, field = name.partition(".")
    if prefix == "set" and field:
        field = field.rpartition(".")[2]
        _require_known(name, field, _SET, PHASE_FIELDS)
        return _kind_of(str(PHASE_FIELDS[field]))
    if prefix == "recipe" and field:
        _require_known(name, field, _RECIPE, ["name", *RECIPE_FIELDS])
        return _kind_of(str(RECIPE_FIELDS.get(field)))
    if prefix == "model" and field:
        _require_known(name, field, _MODEL, ["name", *_MODEL_FIELDS])
        return _kind_of_default(field, _MODEL_FIELDS.get(field))
    if name in _THE_SAME:
        raise ValueError(f"space: {name} cannot vary: {_THE_SAME[name]}")
    known = [
        *(field for field in _CONFIG_FIELDS if field not in _THE_SAME), *(f"{_SET}{field}" for field in PHASE_FIELDS),
        *(f"{_RECIPE}{field}" for field in ("name", *RECIPE_FIELDS)),
        *(f"{_MODEL}{field}" for field in ("name", *_MODEL_FIELDS)),
    ]  # fmt: skip
    if name not in known:
        raise ValueError(
            f"space: got {name[:_SHOWN]!r}, expected a field of the settings, set.FIELD of a phase, recipe.FIELD or "
            f"model.FIELD{did_you_mean(name, known)}"
        )
    return _kind_of(_CONFIG_FIELDS[name])


def _require_known(name: str, field: str, prefix: str, known: Any) -> None:
    if field not in known:
        near = did_you_mean(field, known)
        raise ValueError(f"space: got {name[:_SHOWN]!r}, expected {prefix} with one of {', '.join(known)}{near}")


def _kind_of(annotation: str) -> Literal["int", "float"] | None:
    """Say by the annotation of a field which single number it takes."""
    alone = re.sub(r"\w*(tuple|Sequence|Mapping|dict)\[[^\]]*\]", "", annotation)
    return "float" if "float" in alone else "int" if re.search(r"\bint\b", alone) else None


def _kind_of_default(field: str, default: Any) -> Literal["int", "float"] | None:
    if field == "head_dropout" or isinstance(default, float):
        return "float"
    first = default[0] if isinstance(default, tuple) else default
    return "int" if isinstance(first, int) else None


def _choices(name: str, content: Any, numeric: str | None) -> tuple[Value, ...]:
    if not 1 <= len(content) <= _MOST_CHOICES:
        raise ValueError(f"space: {name}: got {len(content)} choices, expected 1 to {_MOST_CHOICES:,}")
    choices: list[Value] = []
    for value in content:
        if not isinstance(value, (bool, int, float, str)):
            raise ValueError(
                f"space: {name}: got {str(value)[:_SHOWN]!r}, expected numbers, true or false, or text, in which + "
                "joins several"
            )
        is_count = isinstance(value, int) and not isinstance(value, bool)
        value = float(value) if numeric == "float" and is_count else value
        if _what_is_meant(value, numeric) in (_what_is_meant(choice, numeric) for choice in choices):
            raise ValueError(f"space: {name}: got {value_text(value)} twice, expected each choice once")
        choices.append(value)
    return tuple(choices)


def _what_is_meant(value: Value, numeric: str | None) -> str | float:
    """Say by what two choices are the same: by their number where a number is taken, which may be written as text."""
    text = value_text(value)
    number = None if numeric is None else _number(text)
    return text if number is None else number


def _range(name: str, content: Mapping[str, Any], numeric: Literal["int", "float"] | None) -> Parameter:
    if unknown := sorted(content.keys() - set(_RANGE_KEYS)):
        near = did_you_mean(unknown[0], _RANGE_KEYS)
        raise ValueError(f"space: {name}: got {unknown[0]!r}, expected {', '.join(_RANGE_KEYS)}{near}")
    if numeric is None:
        raise ValueError(f"space: {name}: got a range, expected a list of choices: it takes no single number")
    log = content.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"space: {name}.log: got {str(log)[:_SHOWN]!r}, expected true or false")
    low, high = (_end(f"{name}.{end}", content.get(end), numeric) for end in ("low", "high"))
    step = None if content.get("step") is None else _end(f"{name}.step", content["step"], numeric)
    if not low < high:
        raise ValueError(f"space: {name}: got low {low} and high {high}, expected low < high")
    if log and (low <= 0 or step is not None):
        got = f"step {step}" if step is not None else f"low {low}"
        raise ValueError(f"space: {name}: got log beside {got}, expected low > 0 and no step")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"space: {name}.step: got {step}, expected more than 0 and at most {high - low}")
    if step is not None and not (high - low) / step < _MOST_STEPS:
        raise ValueError(
            f"space: {name}.step: got {step}, expected at most {_MOST_STEPS:,} values from {low} to {high}"
        )
    return Parameter(name=name, kind=numeric, low=low, high=high, log=log, step=step)


def _end(name: str, number: Any, numeric: Literal["int", "float"]) -> int | float:
    what = "an integer" if numeric == "int" else "a number"
    if number is None:
        raise ValueError(f"space: {name} is absent, expected {what}")
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
    if not is_number or (numeric == "int" and number != int(number)):
        raise ValueError(f"space: {name}: got {str(number)[:_SHOWN]!r}, expected {what}")
    return int(number) if numeric == "int" else float(number)


def settings_at(settings: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """Give the settings of the run at a point of a space, as `BenchmarkConfig` takes them.

    settings: those that all points share. A name of the point is a field of the settings; `set.NAME`, a setting of
    phases by the name that --set takes; `recipe.FIELD` or `model.FIELD`, a field of the one recipe or model, whose
    own name is that of the field `name`. Raises ValueError where the settings have no single one to set it of, or
    where a value cannot be.

    Example:
        >>> settings_at({"models": ("cnn5",), "batch_size": 64}, {"batch_size": 32, "model.dense": 128, "set.lr": 0.01})
        {'models': ('cnn5:dense=128',), 'batch_size': 32, 'set': {'lr': 0.01}}
    """
    own = {name: value for name, value in point.items() if "." not in name}
    text_fields = {name for name in own if _numeric_kind(name) is None}
    content = {
        name: value_text(value) if name in text_fields and not isinstance(value, bool) else value
        for name, value in own.items()
    }
    found = dict(settings) | settings_of(content)
    for prefix, field, parse in ((_MODEL, "models", parse_model_name), (_RECIPE, "recipes", parse_recipe_name)):
        if any(name.startswith(prefix) for name in point):
            names = found.get(field) or getattr(BenchmarkConfig(**settings).resolved(), field)
            found[field] = (str(parse(_with_fields(point, prefix, names, field))),)
    if of_phases := {name.removeprefix(_SET): value for name, value in point.items() if name.startswith(_SET)}:
        found["set"] = {**(found.get("set") or {}), **settings_of({"set": of_phases})["set"]}
    return found


def _with_fields(point: Point, prefix: str, names: tuple[str, ...] | None, field: str) -> str:
    """Write the one model or recipe with what a point sets of it."""
    given = {name.removeprefix(prefix): value_text(value) for name, value in point.items() if name.startswith(prefix)}
    base = given.pop("name", None)
    if base is None:
        if names is None or len(names) != 1:
            got = ", ".join(names or ["none"])
            raise ValueError(f"{field}: got {got}, expected one in the settings, of which {prefix}FIELD is set")
        base = names[0]
    name, fields = split_fields(field, base, "head=mlp" if prefix == _MODEL else "flip=0.5")
    return ":".join([name, *(f"{each}={value}" for each, value in (fields | given).items())])


def check_point(settings: Mapping[str, Any], point: Point) -> BenchmarkConfig:
    """Make the settings of a point. Raises ValueError, which names the field, where they cannot be."""
    return BenchmarkConfig(**settings_at(settings, point))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
