"""What a run writes of itself: `<run>_run_metadata.json`, typed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FINISHED = "finished"
_KINDS: dict[str, tuple[Any, str]] = {
    "int": (int, "an integer"), "float": ((int, float), "a number"), "bool": (bool, "true or false"),
    "str": (str, "text"), "Mapping": (Mapping, "values by name"), "Sequence": ((list, tuple), "a list"),
    "tuple": ((list, tuple), "a list"),
}  # fmt: skip
"""What a value must be, by the first word of its field's type."""
_KINDS_OF_WEIGHTS = {"ImageNet weights": "imagenet", "random weights": "none", "weights of ": "file"}
"""By the words of `models.build.BuiltModel.note`."""
_KIND_OF_WEIGHTS = re.compile(rf"(?:^|: )({'|'.join(_KINDS_OF_WEIGHTS)})")
_SUMMARY_KEYS = (
    "run_id", "run_name", "display_name", "url", "state", "entity", "project", "group", "job_type", "created_at",
    "updated_at",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """What was trained, on what, as W&B has it too."""

    seed: int
    family: str
    phases: Sequence[Mapping[str, Any]]
    """`Phase.as_dict` of each."""
    dataset: str
    strategy: str
    """As the published tables name it."""
    batch_size: int
    image_size: int
    model_name: str
    num_classes: int
    total_params: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A run that was begun; what is known at its end alone has no value before.

    `absent` names what the file of an older version does not say.
    """

    run_id: str
    run_name: str
    display_name: str = ""
    url: str | None = None
    state: str
    entity: str | None = None
    project: str = ""
    group: str = ""
    job_type: str = ""
    created_at: str = ""
    updated_at: str = ""
    config: RunConfig
    summary: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What makes the run the run that it is; see `experiment.run.run_identity`."""
    strategy_name: str = ""
    """As it was typed: staged, or staged-slow of a variant."""
    recipe_name: str = ""
    """Of the training recipe, where it is not that of the preset."""
    phase_plan: str = ""
    weights: str = ""
    """Where they came from, and what of them was left out."""
    train_recipe: Mapping[str, Any] = field(default_factory=dict)
    eval_recipe: Mapping[str, Any] = field(default_factory=dict)
    num_images: Mapping[str, int] = field(default_factory=dict)
    """By split."""
    loaders: Mapping[str, str] = field(default_factory=dict)
    """Backend by split."""
    device: str = ""
    device_name: str = ""
    num_processes: int = 1
    bn_sees: str = ""
    eval_batch_size: int = 0
    step: Mapping[str, Any] = field(default_factory=dict)
    """The switches of `training.step.StepSettings` but for amp."""
    amp: str | None = None
    bn_when_frozen: str = ""
    cache_features: bool = False
    training_seconds: float = 0.0
    training_seconds_note: str = ""
    training_scores_note: str | None = None
    """`training.mixing.mixed_scores_note`: what the training scores mean where images were mixed."""
    checkpoint_seconds: float = 0.0
    images_per_second: float = 0.0
    best_epoch: int = 0
    best_val_accuracy: float = 0.0
    sessions: Sequence[Mapping[str, Any]] = ()
    """Where each part was computed."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """`training.profile_summary.summarise_profile`."""
    cost: Mapping[str, Any] = field(default_factory=dict)
    """`cost.model_cost.ModelCost.as_json`; empty where it could not be measured."""
    data_notice: str | None = None
    test_was_read: bool = True
    """Whether the run has answered the test split; one by which others are chosen leaves it alone."""
    not_made: Mapping[str, str] = field(default_factory=dict)
    """What could not be made of the run's answers, and why, by name."""
    absent: frozenset[str] = frozenset()

    @property
    def kind_of_weights(self) -> str:
        """What it started with: "imagenet", "none" for random weights, "file", or "" where the record does not say.

        The line of `weights` has the name of the model, then what it started with, then what was left out; the first
        words that fit are meant, since a file may lie in a folder of any name.
        """
        found = _KIND_OF_WEIGHTS.search(self.weights)
        return "" if found is None else _KINDS_OF_WEIGHTS[found[1]]

    @property
    def is_finished(self) -> bool:
        """Whether the run ended well and says how long it trained."""
        return self.state == FINISHED and "training_seconds" not in self.absent

    def as_json(self) -> dict[str, Any]:
        """Lay out the file, without what is absent."""
        content = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        content["config"] = dataclasses.asdict(self.config)
        return {key: value for key, value in content.items() if key not in self.absent and key != "absent"}

    @classmethod
    def from_json(cls, content: Any) -> RunRecord:
        """Read what `as_json` laid out, or an older version. Raises ValueError, which names what is missing."""
        if not isinstance(content, Mapping) or not isinstance(content.get("config"), Mapping):
            raise ValueError(f"got {str(content)[:40]!r}, expected the record of a run")
        known = {each.name for each in dataclasses.fields(cls)} - {"absent"}
        config = _taken(RunConfig, content["config"], "config.")
        given = {key: value for key, value in content.items() if key in known} | {"config": config}
        # What an older version wrote as null it did not know, but for what may be none.
        for each in dataclasses.fields(cls):
            if each.default is not None and given.get(each.name, config) is None:
                del given[each.name]
        return _taken(cls, given | {"absent": frozenset(known - given.keys())}, "")

    def recorded(self) -> RunRecord:
        """Return the record as a reader of its file has it: tuples are lists there."""
        return self.from_json(json.loads(json.dumps(self.as_json(), default=str)))

    def as_row(self) -> dict[str, Any]:
        """Make the row of runs_summary.csv: the published keys, then config and summary by dotted names."""
        own = {key: getattr(self, key) for key in _SUMMARY_KEYS}
        parts = {"config": dataclasses.asdict(self.config), "summary": self.summary}
        return own | {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}


def _taken(kind: type[Any], given: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass of a mapping, of which other keys are left out."""
    fields = dataclasses.fields(kind)
    needed = [each.name for each in fields if each.default is each.default_factory is dataclasses.MISSING]
    if missing := [f"{where}{name}" for name in needed if name not in given]:
        raise ValueError(f"missing {', '.join(missing)}, which every version records")
    check_kinds(kind, given, where)
    return kind(**{each.name: given[each.name] for each in fields if each.name in given})


def check_kinds(kind: type[Any], given: Mapping[str, Any], where: str = "") -> None:
    """Raise ValueError, which names the field, where a value read from JSON is not what a dataclass has there.

    where: what comes before the names of fields, such as "config.".
    """
    for each in dataclasses.fields(kind):
        kinds, word = _KINDS.get(re.split(r"\W", str(each.type))[0], (object, ""))
        value = given.get(each.name)
        if each.name in given and not isinstance(value, kinds) and not (value is None and "None" in str(each.type)):
            raise ValueError(f"{where}{each.name}: got {str(value)[:40]!r}, expected {word}")
