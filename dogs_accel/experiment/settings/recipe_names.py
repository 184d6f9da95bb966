"""Names of training recipes as they are typed: NAME[:FIELD=VALUE]..., and what each field may be."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from dogs_accel.experiment.settings.phase_settings import read_value
from dogs_accel.models.names import split_fields
from dogs_accel.runtime.arguments import did_you_mean
from pipelines.recipe import RECIPES, Recipe, evaluation_of

_OF_THE_MODEL = ("crop", "mean", "std")
"""Fields that the model's input decides."""
_TYPES = get_type_hints(Recipe)
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}
RECIPE_FIELDS: Mapping[str, Any] = {name: _TYPES[name] for name in _DEFAULTS if name not in ("name", *_OF_THE_MODEL)}
"""What can be set of a recipe: the types of its fields by name."""
_ALSO_EVALUATED = ("resize", "padding", "fill", "interpolation", "crop_place")
"""Fields that evaluation shares where a recipe is evaluated by itself: they draw nothing."""
_SHOWN = 40


@dataclass(frozen=True)
class RecipeName:
    """A name with its fields; as text without the fields that are as the recipe of the name has them."""

    base: str
    """What stands before the first colon, one of `RECIPES`."""
    fields: tuple[tuple[str, Any], ...] = ()
    """What is set of it, in the order of the recipe's fields."""

    def __str__(self) -> str:
        return ":".join([self.base, *(f"{name}={_shown(value)}" for name, value in self.fields)])

    @property
    def slug(self) -> str:
        """Name it for files and folders, such as inaturalist-train_flip-0_0."""
        text = "".join(f"_{name}-{_shown(value)}" for name, value in self.fields)
        return self.base + re.sub(r"[^\w-]", "_", text.replace("+", "-"))

    @property
    def recipe(self) -> Recipe:
        """The recipe of training; raises ValueError where its fields contradict each other."""
        return self._changed(RECIPES[self.base], dict(self.fields))

    @property
    def evaluation(self) -> Recipe:
        """The recipe of evaluation: that of the name before the first colon.

        Where that is evaluated by itself, what is set of its size, padding and interpolation holds there too.
        """
        base = RECIPES[self.base]
        evaluation = evaluation_of(base)
        if evaluation is not base:
            return evaluation
        return self._changed(base, {name: value for name, value in self.fields if name in _ALSO_EVALUATED})

    def _changed(self, recipe: Recipe, fields: Mapping[str, Any]) -> Recipe:
        if not fields:
            return recipe
        try:
            return dataclasses.replace(recipe, name=str(RecipeName(self.base, tuple(fields.items()))), **fields)
        except ValueError as error:
            raise ValueError(f"recipes: {self.base}: {error}") from error


@functools.cache
def parse_recipe_name(text: str) -> RecipeName:
    """Read NAME[:FIELD=VALUE]..., in which values that belong together are joined by + and nothing is none.

    Raises ValueError, in one line, for an unknown name or field, a value that the field cannot have, and values that
    contradict each other.

    Example:
        >>> named = parse_recipe_name("inaturalist-train:flip=0:rotation_deg=30")
        >>> str(named), named.evaluation.name
        ('inaturalist-train:flip=0.0:rotation_deg=30.0', 'inaturalist-eval')
    """
    base, given = split_fields("recipes", text, "flip=0.5")
    if base not in RECIPES:
        near = did_you_mean(base, RECIPES)
        raise ValueError(f"recipes: got {base[:_SHOWN]!r}, expected some of {', '.join(RECIPES)}{near}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in _OF_THE_MODEL:
            raise ValueError(f"recipes: got {name} in {text!r}, which the model's input decides")
        if name not in RECIPE_FIELDS:
            near = did_you_mean(name, RECIPE_FIELDS)
            raise ValueError(f"recipes: {base} has no field {name!r}, expected one of {', '.join(RECIPE_FIELDS)}{near}")
        try:
            values[name] = read_value(RECIPE_FIELDS[name], value)
        except ValueError as error:
            raise ValueError(f"recipes: {name} of {base}: {error}") from error
    changed = {name: values[name] for name in RECIPE_FIELDS if name in values}
    named = RecipeName(base, tuple((n, v) for n, v in changed.items() if v != getattr(RECIPES[base], n)))
    named.recipe.at(named.recipe.crop)
    return named


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_shown, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
