"""Settings of phases by the fields of `Phase`: [STRATEGY.[PHASE.]]FIELD=VALUE, and variants of strategies.

No field is known here by name but `name`, which is none of the user's, `mode` and `epochs`, which others depend on, and
`groups` and `num_groups`, of which one stands in place of the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.training.phases import STRATEGIES, Phase

_TYPES = get_type_hints(Phase)
PHASE_FIELDS: dict[str, Any] = {
    field.name: _TYPES[field.name] for field in dataclasses.fields(Phase) if field.name != "name"
}
"""What can be set of a phase: the types of its fields by name."""
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Phase)}
_FORM = "[STRATEGY.[PHASE.]]FIELD=VALUE"
_VARIANT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST, _SHOWN = 40, 40
_LARGEST = 2**31 - 1


def base_strategy(name: str) -> str:
    """Give the strategy of which a name is a variant, such as head of head-smooth; of a strategy itself that one.

    Raises ValueError for a name of neither.
    """
    base, _, variant = name.partition("-")
    if name in STRATEGIES:
        return name
    if base not in STRATEGIES:
        raise ValueError(f"got {name!r}, expected one of {', '.join(STRATEGIES)}{did_you_mean(name, STRATEGIES)}")
    if len(name) > _LONGEST or not _VARIANT.fullmatch(variant):
        raise ValueError(
            f"got {name!r}, expected a name such as {base}-slow, of up to {_LONGEST} lower-case letters, digits and -"
        )
    return base


def parse_setting(text: str) -> tuple[str, Any]:
    """Read "full.lr=3e-4" as a name and a value of its field's type."""
    name, is_given, value = text.partition("=")
    try:
        if not is_given:
            raise ValueError(f"got {text[:_SHOWN]!r}, expected {_FORM}")
        return name, _value_of(name, value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def read_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings of phases as a file has them, in which each dot of a name may be a table instead.

    Raises ValueError, which names the setting.
    """
    found: dict[str, Any] = {}

    def read(where: str, inner: Mapping[str, Any]) -> None:
        for key, value in inner.items():
            name = f"{where}{key}"
            is_table = isinstance(value, Mapping) and name.rpartition(".")[2] not in PHASE_FIELDS
            if is_table and name.count(".") < 2:
                read(f"{name}.", value)
            elif name in found:
                raise ValueError(f"got {name} twice, expected each setting once")
            else:
                found[name] = _value_of(name, value)

    read("", content)
    return found


def _value_of(name: str, value: Any) -> Any:
    field = split_name(name)[2]
    try:
        return read_value(PHASE_FIELDS[field], value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def split_name(name: str) -> tuple[str, str, str]:
    """Split the name of a setting into strategy, phase and field, of which the first two may be "".

    Raises ValueError for another name.
    """
    *scope, field = name.split(".")
    if len(scope) > 2 or not all(re.fullmatch(r"[\w-]+", part) for part in scope):
        raise ValueError(f"got {name[:_SHOWN]!r}, expected {_FORM}")
    if field not in PHASE_FIELDS:
        known = f"expected a field of a phase: {', '.join(PHASE_FIELDS)}"
        raise ValueError(f"got {field[:_SHOWN]!r}, {known}{did_you_mean(field, PHASE_FIELDS)}")
    strategy, phase, *_ = *scope, "", ""
    return strategy, phase, field


def read_value(kind: Any, value: Any) -> Any:
    """Read a value of a type, from text as it is typed, or as JSON and TOML have it.

    Several are joined by "+" in text, and names and values by ":", as in layer1:1e-5+fc:5e-4; nothing is "none".
    Raises ValueError for another value, TypeError for a type that is not known here.
    """
    if kind in _READERS:
        return _READERS[kind](value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read_union(inner, value)
    if origin is Literal:
        if value not in inner:
            raise _wrong(value, f"one of {', '.join(map(str, inner))}")
        return value
    if origin is tuple and Ellipsis not in inner:
        return _read_each(inner, value)
    if origin in (tuple, Sequence):
        return _read_several(inner[0], value)
    if origin in (dict, Mapping):
        return _read_by_name(inner[1], value)
    raise TypeError(f"a field of a phase is {kind}, which no text is read as")


def _read_union(kinds: Iterable[Any], value: Any) -> Any:
    others = [kind for kind in kinds if kind is not NoneType]
    if NoneType in kinds and value in (None, "none"):
        return None
    for kind in others[:-1]:
        try:
            return read_value(kind, value)
        except ValueError:  # the next one may
            continue
    return read_value(others[-1], value)


def _read_several(kind: Any, value: Any) -> tuple[Any, ...]:
    return tuple(read_value(kind, each) for each in _listed(value))


def _read_each(kinds: Sequence[Any], value: Any) -> tuple[Any, ...]:
    values = _listed(value)
    if len(values) != len(kinds):
        raise _wrong(value, f"{len(kinds)} values")
    return tuple(read_value(kind, each) for kind, each in zip(kinds, values, strict=True))


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return value.split("+") if value else ()
    if not isinstance(value, (list, tuple)):
        raise _wrong(value, "a list")
    return value


def _read_by_name(kind: Any, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        pairs = [part.rpartition(":") for part in value.split("+")] if value else []
        given = {name: text for name, _, text in pairs}
        if "" in given or len(given) < len(pairs):
            raise _wrong(value, "names, each once, with values such as layer1:1e-5+fc:5e-4")
        value = given
    if not isinstance(value, Mapping):
        raise _wrong(value, "values by name")
    return {_text(name): read_value(kind, each) for name, each in value.items()}


def _wrong(value: Any, expected: str) -> ValueError:
    shown = str(value)
    return ValueError(f"got {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}...'!r}, expected {expected}")


def _integer(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,10}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST:
        raise _wrong(value, "an integer")
    return value


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(value, "a number")
    return number


def _truth(value: Any) -> bool:
    known = {"true": True, "false": False}
    if not isinstance(value, bool) and value not in known:
        raise _wrong(value, "true or false")
    return known.get(value, value)


def _text(value: Any) -> str:
    if not (isinstance(value, str) and value.isprintable()):
        raise _wrong(value, "text")
    return value


_READERS = {int: _integer, float: _number, bool: _truth, str: _text}


def scopes(strategy: str, phase: str) -> list[str]:
    """What stands before the field of a setting of a phase: from all phases to this one, each wins over those before.

    Example:
        >>> scopes("staged-slow", "head_only")
        ['', 'staged.', 'staged.head_only.', 'staged-slow.', 'staged-slow.head_only.']
    """
    of_one = [f"{name}.{part}" for name in (base_strategy(strategy), strategy) for part in ("", f"{phase}.")]
    return list(dict.fromkeys(["", *of_one]))


def names_in_force(strategy: str, phase: str, names: Iterable[str]) -> dict[str, str]:
    """Of these names of settings those that hold for a phase, by field."""
    given = set(names)
    return {
        field: f"{scope}{field}"
        for scope in scopes(strategy, phase)
        for field in PHASE_FIELDS
        if f"{scope}{field}" in given
    }


def set_epochs(phases: Sequence[Phase], strategy: str, settings: Mapping[str, Any]) -> list[int] | None:
    """Give the epochs of the phases of a strategy where those of any are set, else None. Raises ValueError."""
    names = [names_in_force(strategy, phase.name, settings).get("epochs") for phase in phases]
    epochs = [
        phase.epochs if name is None else _value_of(name, settings[name])
        for phase, name in zip(phases, names, strict=True)
    ]
    for name, value in zip(names, epochs, strict=True):
        if value < 1:
            raise ValueError(f"set: {name}: got {value}, expected an integer >= 1")
    return epochs if any(names) else None


def set_phases(phases: Sequence[Phase], strategy: str, settings: Mapping[str, Any]) -> list[Phase]:
    """Give the phases of a strategy with what is set of them.

    A phase that is named for its mode gets the name of the one that is set. Raises ValueError where the fields of a
    phase contradict each other.
    """
    return [_set_phase(phase, strategy, settings) for phase in phases]


def _set_phase(phase: Phase, strategy: str, settings: Mapping[str, Any]) -> Phase:
    in_force = names_in_force(strategy, phase.name, settings)
    values = {field: _value_of(name, settings[name]) for field, name in in_force.items()}
    for one, other in (("groups", "num_groups"), ("num_groups", "groups")):  # two ways to say what a part is
        if values.get(one) and other not in values:
            values[other] = _DEFAULTS[other]
    if "mode" in values and phase.name == phase.mode:
        values["name"] = values["mode"]
    try:
        return dataclasses.replace(phase, **values)
    except ValueError as error:
        raise ValueError(f"set: {phase.name} of {strategy}: {error}") from error


def check_settings(settings: Mapping[str, Any], phases: Mapping[str, Sequence[Phase]]) -> None:
    """Raise ValueError for a setting that reaches none of these phases, by strategy, or whose value is none."""
    for name in settings:
        strategy, phase, _ = split_name(name)
        named = [each for each in phases if strategy in ("", each, base_strategy(each))]
        if not named:
            raise ValueError(f"set: got {name}, expected one of the strategies {', '.join(phases)}")
        known = [each.name for strategy in named for each in phases[strategy]]
        if phase and phase not in known:
            expected = ", ".join(dict.fromkeys(known))
            raise ValueError(f"set: got {name}, expected a phase of {strategy}: {expected}{did_you_mean(phase, known)}")
    in_force = {
        name
        for strategy, each in phases.items()
        for phase in each
        for name in names_in_force(strategy, phase.name, settings).values()
    }
    if without := [name for name in settings if name not in in_force]:
        raise ValueError(f"set: {without[0]} changes no phase: each has a setting that is more specific")
