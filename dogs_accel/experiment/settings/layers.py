"""Settings laid over others: those of a file over a preset's, and those of the command line over both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dogs_accel.experiment.settings.phase_settings import base_strategy, scopes, split_name
from dogs_accel.training.phases import STRATEGIES

_Place = tuple[str, str]
"""A strategy and one of its phases, by their names."""
_IN_PLACE_OF = {"groups": "num_groups", "num_groups": "groups"}
"""Two ways to say one thing."""
_EPOCHS = "epochs"


def laid_over(
    below: Mapping[str, Any],
    above: Mapping[str, Any],
    strategies: Sequence[str],
    epochs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Lay settings of phases over others: in each phase a field is what `above` says of it, if anything.

    Within one of the two the more specific setting wins; between the two it is `above`, however specific the other is.

    Args:
        below: values by [STRATEGY.[PHASE.]]FIELD.
        above: the same.
        strategies: those that are trained, by whose phases a setting counts.
        epochs: what `above` says of epochs by strategy, "" for all, beside its settings.

    Returns:
        Settings of one level that say both. One of `below` that holds for no phase any more is left out, and one that
        holds for some of its phases only is there for each of these; one that reaches no phase at all is kept, so that
        it can be refused.

    Example:
        >>> laid_over({"staged.lr": 1.0, "patience": 3}, {"staged.head_only.lr": 2.0}, ["staged"])
        {'staged.lr': 1.0, 'patience': 3, 'staged.head_only.lr': 2.0}
        >>> laid_over({"staged.head_only.lr": 1.0, "patience": 3}, {"lr": 2.0}, ["staged"])
        {'patience': 3, 'lr': 2.0}
    """
    places = _places(strategies)
    kept: dict[str, Any] = {}
    for name, value in below.items():
        reached = _reached(name, places)
        field = split_name(name)[2]
        lost = {place for place in reached if _is_said(field, place, above, epochs or {})}
        if not lost or (lost != reached and all(_loses_to_another(name, place, above) for place in lost)):
            kept[name] = value
            continue
        ones = [f"{strategy}.{phase}.{field}" for strategy, phase in places if (strategy, phase) in reached - lost]
        kept |= {one: value for one in ones if one not in below}
    return kept | dict(above)


def reaching(settings: Mapping[str, Any], strategies: Sequence[str]) -> dict[str, Any]:
    """Of settings of phases those that reach a phase of these strategies."""
    places = _places(strategies)
    return {name: value for name, value in settings.items() if _reached(name, places)}


def _places(strategies: Iterable[str]) -> list[_Place]:
    return [(name, plan.name or plan.mode) for name in strategies for plan in STRATEGIES[base_strategy(name)]]


def _reached(name: str, places: Iterable[_Place]) -> set[_Place]:
    scope = name.removesuffix(split_name(name)[2])
    return {place for place in places if scope in scopes(*place)}


def _names_at(field: str, place: _Place, settings: Collection[str]) -> list[str]:
    """The names of settings of a field that hold for a place, the more specific ones later."""
    return [f"{scope}{field}" for scope in scopes(*place) if f"{scope}{field}" in settings]


def _is_said(field: str, place: _Place, above: Mapping[str, Any], epochs: Mapping[str, Any]) -> bool:
    if field == _EPOCHS and {"", place[0], base_strategy(place[0])} & epochs.keys():
        return True
    names = _names_at(field, place, above)
    return bool(names or (field in _IN_PLACE_OF and _names_at(_IN_PLACE_OF[field], place, above)))


def _loses_to_another(name: str, place: _Place, above: Mapping[str, Any]) -> bool:
    """Whether a setting of `above` is more specific than this one at a place, and wins beside it by that."""
    return _names_at(split_name(name)[2], place, [name, *above])[-1] != name
