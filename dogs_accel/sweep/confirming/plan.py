"""What is trained anew to confirm a sweep: its best trials, a baseline, and the seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dogs_accel.experiment.plan import plan_runs
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import config_from_json, read_settings_file
from dogs_accel.experiment.settings.presets import PRESETS
from dogs_accel.runtime.files import read_json, write_json
from dogs_accel.runtime.terminal import count_text
from dogs_accel.sweep.confirming.judge import BASELINE, Finalist, describe_epochs
from dogs_accel.sweep.findings.confirmed import CONFIRMATION_FILE
from dogs_accel.sweep.findings.run import point_of, point_text
from dogs_accel.sweep.findings.selection import selection_bias
from dogs_accel.sweep.findings.trials import SweepTrials
from dogs_accel.sweep.settings import SweepConfig

CONFIRM_FOLDER = "confirm"
"""Of a sweep: a folder of results for each candidate, without test."""
CONFIRM_PLAN_FILE = "plan.json"
_INHERITED = ("image_size", "loader", "store", "num_threads", "eval_batch_size", "amp")
"""Settings of the sweep that hold for a baseline which does not say them."""
_FIELDS = {"model": "models", "recipe": "recipes"}
"""Fields of settings that parameters of a space set parts of."""
_OF_A_RUN = {"out", "seeds", "runs", "test", "tta"}
"""Settings of a file that confirming decides itself."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A candidate and the settings of its runs."""

    candidate: Finalist
    folder: str
    """Below that of the sweep."""
    config: BenchmarkConfig
    """Without test, of as many seeds as are asked for and the one of the sweep, which is not among its runs."""


@dataclass(frozen=True, kw_only=True)
class ConfirmPlan:
    """What is trained, fixed before the first run of it."""

    top: int
    seeds: tuple[int, ...]
    baseline: str
    """Where the baseline comes from, in words."""
    planned: tuple[Planned, ...]
    """The trials, the best one first, and then the baseline."""
    num_complete: int = 0
    """Complete trials of which they are the best; 0 of a plan that was written without it."""
    expected_bias: float | None = None
    """What choosing the best of them was expected to add to it; None of a plan that was written without it."""
    num_pruned: int = 0
    """Trials that were given up by the same images."""

    def as_json(self) -> dict[str, Any]:
        """Lay out the file."""
        return dataclasses.asdict(self)


def make_confirm_plan(
    sweep: SweepConfig, trials: SweepTrials, *, top: int, seeds: int, baseline: Path | None
) -> ConfirmPlan:
    """Choose what is trained anew.

    top: how many of the best trials; seeds: how many, from the one after the sweep's on, since with the same seed a run
    would give the same answer again; baseline: a file of settings. Without it the baseline has what the preset of the
    sweep has of what varies, where that is one run, else the settings that all trials share. Unless its file says
    epochs, it has those of the best trial. A trial with the settings of the baseline makes way for the next one. Raises
    ValueError where the settings contradict each other or the sweep's.
    """
    points = [(row, point_of(row, sweep.space)) for _, row in trials.best_of(len(trials.values)).iterrows()]
    best = sweep.config(points[0][1])
    if baseline is None:
        config, words = _own_baseline(sweep)
        config = _with_epochs_of(config, best) or config
    else:
        config, words = _file_config(sweep, baseline, best), str(baseline)
    is_same = [_experiment(sweep.config(own)) == _experiment(config) for _, own in points]
    others = [each for each, same in zip(points, is_same, strict=True) if not same][:top]
    in_sweep = next((float(row["value"]) for (row, _), same in zip(points, is_same, strict=True) if same), None)
    of_trials = [
        _planned(
            Finalist(name=f"trial {row['number']}", in_sweep=float(row["value"]), settings=point_text(own, sweep.space),
                     epochs=sum(_epochs(sweep.config(own)))),
            f"{CONFIRM_FOLDER}/trial_{row['number']:04}", sweep.config(own), seeds,
        )
        for row, own in others
    ]  # fmt: skip
    last = _planned(
        Finalist(name=BASELINE, in_sweep=in_sweep, settings=words, epochs=sum(_epochs(config))),
        f"{CONFIRM_FOLDER}/{BASELINE}", config, seeds,
    )  # fmt: skip
    first = config.seed + 1
    bias = selection_bias(trials.values, int(trials.counted["num_val"].max()), num_pruned=trials.num_pruned)
    return ConfirmPlan(
        top=top,
        seeds=tuple(range(first, first + seeds)),
        baseline=words,
        planned=(*of_trials, last),
        num_complete=len(points),
        expected_bias=bias.expected,
        num_pruned=bias.num_pruned,
    )


def _own_baseline(sweep: SweepConfig) -> tuple[BenchmarkConfig, str]:
    """Take the setting that the sweep's preset has of what varies, or what all trials share; and say which."""
    shared = {"test": False, **sweep.settings}
    varied = {_FIELDS.get(name.partition(".")[0], name) for name in sweep.space.names}
    of_preset = {name: value for name, value in shared.items() if name not in varied}
    if of_preset != shared and "preset" in shared:
        config = BenchmarkConfig(**of_preset)
        if len(plan_runs(config.resolved())) == 1:
            [run] = plan_runs(config.resolved())
            return config, f"preset {config.preset}: {run.spec.name}, batch {config.resolved().batch_size}"
    return BenchmarkConfig(**shared), "the settings that all trials share"


def _epochs(config: BenchmarkConfig) -> tuple[int, ...]:
    """Epochs of the phases of a candidate."""
    return tuple(phase.epochs for phase in plan_runs(config.resolved())[0].phases)


def _with_epochs_of(config: BenchmarkConfig, best: BenchmarkConfig) -> BenchmarkConfig | None:
    """Give a baseline the epochs of the best trial; None where its phases are of another number."""
    own, there = _epochs(config), _epochs(best)
    if len(own) != len(there):
        return None
    if own == there:
        return config
    kept = {name: value for name, value in (config.set or {}).items() if not _is_epochs(name)}
    return dataclasses.replace(config, epochs={"": there}, set=kept or None)


def _is_epochs(name: str) -> bool:
    return name.rpartition(".")[2] == "epochs"


def _experiment(config: BenchmarkConfig) -> list[tuple[Any, ...]]:
    """What two runs must not have in common to be two."""
    resolved = config.resolved()
    return [(run.experiment, resolved.batch_size) for run in plan_runs(resolved)]


def _file_config(sweep: SweepConfig, path: Path, best: BenchmarkConfig) -> BenchmarkConfig:
    """Read a baseline, which has the images of the sweep and, unless it says them, the epochs of the best trial.

    Raises ValueError, which names the file and the field.
    """
    settings = read_settings_file(path)
    if settings.get("data") is not None:  # as a sweep has it
        settings["data"] = str(Path(settings["data"]).absolute())
    shared = {"data": best.data, "on_bad_image": best.on_bad_image, **best.split_settings}
    for name, own in shared.items():
        if name in settings and settings[name] != own:
            expected = "the generated pictures" if own is None else own
            raise ValueError(f"baseline: {path}: {name}: got {settings[name]}, expected {expected} as the sweep has")
    settings = {name: sweep.settings[name] for name in _INHERITED if name in sweep.settings} | settings | shared
    kept = {name: value for name, value in settings.items() if name not in _OF_A_RUN}
    try:
        config = BenchmarkConfig(**kept, test=False)
        if best.data is None and PRESETS[config.preset_name].pictures != PRESETS[best.preset_name].pictures:
            raise ValueError(
                f"preset: got {config.preset_name}, expected {best.preset_name}, whose generated pictures the sweep has"
            )
        if "epochs" in kept or any(map(_is_epochs, kept.get("set") or {})):
            return config
        with_epochs = _with_epochs_of(config, best)
        if with_epochs is None:
            got, there = _epochs(config), _epochs(best)
            raise ValueError(f"epochs: got none for {len(got)} phases, expected them, since a trial has {len(there)}")
        return with_epochs
    except ValueError as error:
        raise ValueError(f"baseline: {path}: {error}") from error


def _planned(candidate: Finalist, folder: str, config: BenchmarkConfig, seeds: int) -> Planned:
    # The first seed is the sweep's, by which the images are split.
    config = dataclasses.replace(config, seeds=seeds + 1)
    runs = plan_runs(config.resolved())
    if len({run.configuration for run in runs}) > 1:
        names = ", ".join(dict.fromkeys(run.configuration for run in runs))
        remedy = "; --baseline FILE says which" if candidate.name == BASELINE else ""
        raise ValueError(f"{candidate.name}: got {names}, expected one model, strategy and recipe{remedy}")
    others = tuple(run.name for run in runs if run.seed != config.seed)
    return Planned(candidate=candidate, folder=folder, config=dataclasses.replace(config, runs=others))


def kept_plan(folder: Path, plan: ConfirmPlan, *, has_own_baseline: bool) -> ConfirmPlan:
    """Write the plan of a sweep's folder, or return the one that is there, by which it goes on.

    has_own_baseline: whether a file says it. Raises ValueError where another one is there: more candidates or seeds,
    added when the first results are known, are chosen by them.
    """
    path = folder / CONFIRM_FOLDER / CONFIRM_PLAN_FILE
    if not path.exists():
        write_json(path, plan.as_json())
        return plan
    found = _read_plan(path)
    fixed = f"what is compared is fixed before the first result; {_to_begin_anew(folder)}"
    for name in ("top", "seeds", "baseline"):
        got, there = getattr(plan, name), getattr(found, name)
        if got != there:
            shown = len(got) if name == "seeds" else got, len(there) if name == "seeds" else there
            raise ValueError(f"confirm: got {name} {shown[0]}, which {path} has as {shown[1]}: {fixed}")
    if has_own_baseline and _but_for_epochs(plan.planned[-1].config) != _but_for_epochs(found.planned[-1].config):
        raise ValueError(f"baseline: {plan.baseline} has changed since {path} was written: {fixed}")
    if found.expected_bias is None:
        found = dataclasses.replace(found, expected_bias=plan.expected_bias, num_pruned=plan.num_pruned)
    return found


def _to_begin_anew(folder: Path) -> str:
    return f"remove {folder / CONFIRM_FOLDER} and {folder / CONFIRMATION_FILE} to begin anew"


def require_same_confirmation(folder: Path, plan: ConfirmPlan, found: Mapping[str, Any]) -> None:
    """Raise ValueError where the results that a folder has, as confirm.json has them, are not those of a plan."""
    names = {each["candidate"]["name"] for each in found["candidates"]} | found.get("diverged", {}).keys()
    if tuple(found["seeds"]) != plan.seeds or names != {each.candidate.name for each in plan.planned}:
        raise ValueError(
            f"confirm: {folder / CONFIRMATION_FILE} is of other candidates or seeds than the plan beside it; "
            f"{_to_begin_anew(folder)}"
        )


def _but_for_epochs(config: BenchmarkConfig) -> Any:
    """Give the settings of a baseline, without the epochs, which may be those of the best trial, and without those that
    are the sweep's."""
    content = dataclasses.asdict(config.resolved())
    content["set"] = {name: value for name, value in (config.set or {}).items() if not _is_epochs(name)}
    for name in ("epochs", "val_ratio", "test_ratio"):
        del content[name]
    return json.loads(json.dumps(content))


def _read_plan(path: Path) -> ConfirmPlan:
    content = read_json(path)
    try:
        return ConfirmPlan(
            top=content["top"],
            seeds=tuple(content["seeds"]),
            baseline=content["baseline"],
            planned=tuple(
                Planned(
                    candidate=Finalist(**each["candidate"]),
                    folder=each["folder"],
                    config=config_from_json(each["config"]),
                )
                for each in content["planned"]
            ),
            num_complete=content.get("num_complete", 0),
            expected_bias=content.get("expected_bias"),
            num_pruned=content.get("num_pruned", 0),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: got {error}, expected the plan of a confirmation") from error


def describe_confirm_plan(plan: ConfirmPlan) -> list[str]:
    """Say what will be trained."""
    seeds = f"seed{'s' * (len(plan.seeds) != 1)} {', '.join(map(str, plan.seeds))}"
    lines = [f"confirm  {count_text(len(plan.planned), 'candidate')} with the {seeds}, without test"]
    for each in plan.planned:
        had = "" if each.candidate.in_sweep is None else f" ({each.candidate.in_sweep:.4f} in the sweep)"
        epochs = f", {count_text(each.candidate.epochs, 'epoch')}" if each.candidate.epochs else ""
        lines.append(f"         {each.candidate.name}{had}: {each.candidate.settings}{epochs}")
    if (num := len(plan.planned) - 1) < plan.top:
        others = "no other trial is complete"
        if plan.num_complete > num:
            others = "no other complete trial has other settings than the baseline"
        lines.append(f"         {num} of {plan.top}: {others}")
    if other_epochs := describe_epochs([each.candidate for each in plan.planned]):
        lines.append(f"         {other_epochs}")
    return [*lines, f"baseline {plan.baseline}"]
