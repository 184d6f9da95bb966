"""One run of the benchmark, from a model's name to its folder of artifacts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from dogs_accel.cost.measure import MeasuredModel, cost_setting, measure_costs
from dogs_accel.cost.model_cost import ModelCost
from dogs_accel.datasets import published_about
from dogs_accel.evaluation.galleries import (
    MISCLASSIFIED_FILE,
    PREDICTION_GRID_FIGURE,
    write_misclassified,
    write_prediction_grid,
)
from dogs_accel.evaluation.predictions import MeanOfViews, Predictions, predict
from dogs_accel.evaluation.quality_error import QUALITY_ERROR_FILE, write_quality_error
from dogs_accel.evaluation.tta import describe_views
from dogs_accel.experiment.examine import ExaminedData
from dogs_accel.experiment.loaders import Loaders
from dogs_accel.experiment.plan import Plan, PlannedRun
from dogs_accel.explain.run import EXPLANATIONS_FOLDER, write_explanations
from dogs_accel.models.build import BuiltModel, build_model
from dogs_accel.models.flops import count_flops, peak_flops
from dogs_accel.models.freezing import count_total_params
from dogs_accel.plots import save_figure
from dogs_accel.results.folder import read_record
from dogs_accel.results.layout import (
    CONFIG_FILE,
    METRICS_FILE,
    PROFILE_FIGURE,
    history_file,
    record_path,
    run_folder,
)
from dogs_accel.results.record import RunRecord
from dogs_accel.results.run import Run
from dogs_accel.results.writing import (
    ViewPredictions,
    score_predictions,
    validation_metrics,
    write_evaluation,
    write_validation,
)
from dogs_accel.runtime.environment import cpu_name
from dogs_accel.runtime.files import UnwritableError, sha256, write_csv, write_json
from dogs_accel.steps import Steps
from dogs_accel.training.checkpoint import CheckpointError, require_same_run
from dogs_accel.training.mixing import mixed_scores_note
from dogs_accel.training.profile_summary import profile_figure, summarise_profile
from dogs_accel.training.tracking import PrunedError, TrackedRun
from dogs_accel.training.trainer import TIMING_NOTE, HistoryRow, Trainer, TrainResult
from pipelines import Loader

_COST_SECONDS = 0.2
"""For which a model is measured with one image, and again with a batch; of each there are seven rounds at least."""


@dataclass(frozen=True, kw_only=True)
class TrialOfSweep:
    """What makes a run one of a sweep."""

    group: str
    """The sweep's name, under which W&B gathers its runs."""
    title: str
    """The run's own."""
    point: Mapping[str, Any]
    """What varies, by name, as W&B has it too."""
    on_epoch: Callable[[Sequence[HistoryRow]], None]
    """Gets the history after each epoch, and when a run goes on; it may raise PrunedError."""
    checkpoint_every_s: float = 0.0
    """Least time between two checkpoints."""
    is_of_agent: bool = False
    """Whether W&B's agent started it, which has told W&B's variables which run it is."""


def execute_run(
    plan: Plan,
    planned: PlannedRun,
    loaders: Loaders,
    examined: ExaminedData,
    earlier: Sequence[Run] = (),
    trial: TrialOfSweep | None = None,
) -> Run:
    """Train, evaluate and write one run into its folder, or find what it has left there if it is finished.

    earlier: runs of the same plan; what a model costs is not measured again where one of them has measured it.
    trial: what makes it one of a sweep, if it is.
    Without test nothing is made that is of it, nor what describes a model beside its scores: figures and cost.
    What a later step needs is on disk before it starts: a failure costs that step and nothing before it. What fails
    once the answers are on disk is named in the record, and the rest is made. Of several processes rank 0 alone writes,
    and knows the run's files.
    """
    folder = run_folder(plan.out, planned.spec.family, planned.name)
    identity = run_identity(plan, planned, examined)
    record = plan.world.broadcast(lambda: _begun(folder, identity))
    if record is not None and record.is_finished:
        score, split = ("test/accuracy", "test") if plan.config.test else ("evaluation/val_accuracy", "validation")
        print(f"\n{planned.title}\n  finished already, {split} accuracy {record.summary[score]:.4f}")
        run = Run(folder, record)
        plan.world.broadcast(lambda: _require_whole(run))
        return run
    built = build_model(planned.spec, plan.data.num_classes, planned.weights, planned.seed)
    print(f"\n{planned.title}\n  {built.note}, {count_total_params(built.model):,} parameters")
    tracked = _tracked_run(plan, planned, count_total_params(built.model), record, trial)

    def begin() -> None:
        folder.mkdir(parents=True, exist_ok=plan.resumes)
        write_json(record_path(folder), _record(tracked, identity).as_json())

    plan.world.broadcast(begin)
    steps = Steps(plan.out, planned.name)
    work = _Work(plan, planned, loaders, examined, folder, tracked, identity, steps, list(earlier), trial)
    try:
        with ExitStack() as stack:
            plan.world.on_all_ranks(lambda: stack.enter_context(tracked))
            trained, backends, known, cost = _train_and_evaluate(work, built)
            described = _describe_run(work, trained, built.note, backends)
            described["cost"] = {} if cost is None else cost.as_json()
    except PrunedError:
        write_json(record_path(folder), _record(tracked, identity).as_json())
        raise
    record = plan.world.broadcast(
        lambda: dataclasses.replace(_record(tracked, identity), absent=frozenset(), **described).recorded()
    )
    if plan.world.is_rank_zero:
        require_folder(plan)
        # The last file: a run that has it is finished.
        write_json(record_path(folder), record.as_json())
    return Run(folder, record, known)


@dataclass(frozen=True)
class _Work:
    """What the steps of one run share."""

    plan: Plan
    planned: PlannedRun
    loaders: Loaders
    examined: ExaminedData
    folder: Path
    tracked: TrackedRun
    identity: dict[str, Any]
    steps: Steps
    """What is made of the answers once they are on disk."""
    earlier: Sequence[Run]
    trial: TrialOfSweep | None


def _begun(folder: Path, identity: dict[str, Any]) -> RunRecord | None:
    """Read what a run has written of itself, if it was begun. Raises CheckpointError where it was another one."""
    path = record_path(folder)
    if not path.exists():
        return None
    try:
        record = read_record(path)
    except ValueError as error:
        raise CheckpointError(f"checkpoint: {error}; remove it to run that run again") from error
    for key, what in (("images", "files or labels"), ("contents", "contents of files")):
        recorded = record.identity.get(key, identity[key])
        if splits := [split for split, digest in identity[key].items() if recorded.get(split) != digest]:
            raise CheckpointError(
                f"checkpoint: {path} is of other images: {what} of {', '.join(splits)} have changed since; what was "
                "written is left as it is, and a new --out trains on the images as they are now"
            )
    require_same_run(path, record.identity, identity)
    return record


def require_same_runs(plan: Plan, examined: ExaminedData) -> None:
    """Raise CheckpointError where a run that was begun in the folder of results is another one than planned."""
    for planned in plan.runs if plan.resumes else ():
        _begun(run_folder(plan.out, planned.spec.family, planned.name), run_identity(plan, planned, examined))


def require_folder(plan: Plan) -> None:
    """Raise UnwritableError where the folder of results was removed meanwhile, of which a half would be made anew."""
    if not (plan.out / CONFIG_FILE).exists():
        raise UnwritableError(
            f"{plan.out} was removed while the run wrote to it, and what had ended with it; another --out starts anew"
        )


def _require_whole(run: Run) -> None:
    """Read what the comparison needs of a finished run. Raises CheckpointError where it is absent or damaged."""
    try:
        if not run.record.test_was_read:
            run.predictions("val")
            return
        if "intervals" not in run.metrics:
            raise ValueError(f"{run.folder / METRICS_FILE} has no intervals, an older version wrote it")
        if len(run.class_names) != run.predictions("test").logits.shape[1]:
            raise ValueError(f"{run.folder}: got logits of another number of classes than its report has")
    except ValueError as error:
        raise CheckpointError(f"checkpoint: {error}; remove {run.folder} to run that run again") from error


def _record(tracked: TrackedRun, identity: dict[str, Any]) -> RunRecord:
    """Make the record of a run that has begun."""
    return RunRecord.from_json({**tracked.as_record(), "identity": identity})


def _tracked_run(
    plan: Plan, planned: PlannedRun, total_params: int, record: RunRecord | None, trial: TrialOfSweep | None
) -> TrackedRun:
    """Make the run as W&B knows it, on rank 0; record is what was written of it before it was stopped."""
    facts = plan.data.facts
    published = published_about(facts.published)
    known: dict[str, Any] = {} if record is None else {"run_id": record.run_id, "created_at": record.created_at}
    return TrackedRun(
        name=planned.name,
        display_name=planned.title if trial is None else trial.title,
        mode=plan.config.wandb if plan.world.is_rank_zero else "disabled",
        folder=plan.out,
        group=trial.group if trial is not None else facts.name if published is None else published.wandb_group,
        config={
            "seed": planned.seed,
            "family": planned.spec.family,
            "phases": [phase.as_dict() for phase in planned.phases],
            "dataset": facts.name,
            "strategy": planned.strategy,
            "batch_size": plan.batch_size,
            "image_size": planned.spec.image_size,
            "model_name": planned.spec.display,
            "num_classes": plan.data.num_classes,
            "total_params": total_params,
            **({} if trial is None else trial.point),
        },
        resumes=record is not None,
        is_of_agent=trial is not None and trial.is_of_agent,
        lists_packages=trial is None,
        **known,
    )


def run_identity(plan: Plan, planned: PlannedRun, examined: ExaminedData) -> dict[str, Any]:
    """Say what makes a run the run that it is: a checkpoint of a run with another identity is not gone on with."""
    return {
        "model": planned.spec.name,
        "image_size": planned.spec.image_size,
        "num_classes": plan.data.num_classes,
        "weights": planned.weights if planned.weights in ("imagenet", "none") else sha256(Path(planned.weights)),
        "seed": planned.seed,
        "batch_size": plan.batch_size,
        "phases": [phase.as_dict() for phase in planned.phases],
        "train_recipe": planned.train_recipe.as_dict(),
        "eval_recipe": planned.eval_recipe.as_dict(),
        "amp": str(plan.amp),
        "tf32": plan.config.tf32,
        "bn_when_frozen": plan.config.bn_when_frozen,
        "cache_features": plan.config.cache_features,
        "images": {split: plan.data.digest(index) for split, index in examined.splits.items()},
        "contents": dict(examined.contents),
    }


def _train_and_evaluate(
    work: _Work, built: BuiltModel
) -> tuple[TrainResult, dict[str, str], dict[str, Any], ModelCost | None]:
    """Do the work of a run.

    Returns what training said, the backend of each split, what is known of the files, by their names as a `Run` takes
    it, and what the model costs, None where that could not be measured. The last two are of rank 0, which writes and
    measures.
    """
    plan, planned, splits = work.plan, work.planned, work.examined.splits
    make, seed = work.loaders.of, planned.seed
    with ExitStack() as stack:
        train = stack.enter_context(make(splits["train"], planned.train_recipe, shuffle=True, seed=seed))
        val = stack.enter_context(make(splits["val"], planned.eval_recipe, seed=seed))
        plain = None
        if plan.config.cache_features:
            plain = stack.enter_context(make(splits["train"], planned.eval_recipe, seed=seed))
        trainer = _trainer(work, built.model, train, val, plain)
        trained = trainer.run(planned.phases, resume=plan.resumes)
        predictions = {"val": _predict(work, trainer.model, val, "val")}
    backends = {"train": train.backend, "val": val.backend}
    if not plan.config.test:
        return trained, backends, _validated(work, trained, predictions["val"]), None
    # The test split is read here, once, after every choice has been made on validation.
    with make(splits["test"], planned.eval_recipe, seed=seed) as test:
        predictions["test"] = _predict(work, trainer.model, test, "test")
    views = _predict_views(work, trainer.model, predictions)
    metrics = score_predictions(planned.spec.display, predictions["val"], predictions["test"], views)
    _summarise(work.tracked, trained, metrics)
    known: dict[str, Any] = {}
    cost: ModelCost | None = None
    if plan.world.is_rank_zero:
        known = write_evaluation(
            work.folder,
            planned.title,
            plan.data.class_names,
            predictions["val"],
            predictions["test"],
            metrics,
            views=views,
            noun=plan.data.noun,
            step=work.steps.step,
        )
        with work.steps.step(PROFILE_FIGURE):
            save_figure(profile_figure(trained.history, planned.title), work.folder / PROFILE_FIGURE)
        _write_analysis(work, trainer.model, predictions["test"])
        cost = _cost(work, trainer.model)
    _print_result(trained, metrics, cost)
    return trained, backends | {"test": test.backend}, known, cost


def _validated(work: _Work, trained: TrainResult, val: Predictions) -> dict[str, Any]:
    """Write what a run says that has not read the test split, and give what is known of its files."""
    metrics = validation_metrics(work.planned.spec.display, val)
    work.tracked.summarise(_of_validation(trained, metrics))
    known = write_validation(work.folder, val, metrics) if work.plan.world.is_rank_zero else {}
    print(
        f"  validation accuracy {metrics['val']['accuracy']:.4f}, best epoch {trained.best_epoch}; trained in "
        f"{trained.training_seconds:.1f} s at {trained.images_per_second:,.0f} img/s; test was not read"
    )
    return known


def _trainer(
    work: _Work, model: nn.Module, train_loader: Loader, val_loader: Loader, plain_loader: Loader | None
) -> Trainer:
    plan, planned, tracked = work.plan, work.planned, work.tracked
    num_epochs = sum(phase.epochs for phase in planned.phases)

    def write(history: list[HistoryRow]) -> None:
        write_csv(work.folder / history_file(planned.name), pd.DataFrame(history))

    def on_epoch(history: list[HistoryRow]) -> None:
        require_folder(work.plan)
        write(history)
        row = history[-1]
        mixed = " of mixed images" * ("mix" in row)
        print(
            f"  epoch {row['epoch_total']:>2}/{num_epochs}  {row['phase']:<13}  train loss {row['train_loss']:.3f} "
            f"acc {row['train_acc']:.3f}{mixed}  val loss {row['val_loss']:.3f} acc {row['val_acc']:.3f}",
            flush=True,
        )
        _log(tracked, row)
        if work.trial is not None:
            work.trial.on_epoch(history)

    def on_resume(history: list[HistoryRow]) -> None:
        write(history)
        print(f"  goes on after epoch {len(history)}/{num_epochs}")
        for row in history:
            _log(tracked, row)
        if work.trial is not None:
            work.trial.on_epoch(history)

    return Trainer(
        model,
        train_loader,
        val_loader,
        num_classes=plan.data.num_classes,
        device=plan.device,
        folder=work.folder,
        seed=planned.seed,
        settings=plan.step,
        bn_when_frozen=plan.config.bn_when_frozen,
        plain_train_loader=plain_loader,
        world=plan.world,
        identity=work.identity,
        session=_session(plan),
        label=planned.name,
        trace=plan.config.profile,
        checkpoint_every_s=0.0 if work.trial is None else work.trial.checkpoint_every_s,
        on_epoch=on_epoch if plan.world.is_rank_zero else None,
        on_resume=on_resume if plan.world.is_rank_zero else None,
    )


def _log(tracked: TrackedRun, row: HistoryRow) -> None:
    tracked.log(
        {
            **{f"train/{name}": row[f"train_{name}"] for name in ("loss", "acc", "macro_f1", "weighted_f1")},
            **{f"val/{name}": row[f"val_{name}"] for name in ("loss", "acc", "macro_f1", "weighted_f1")},
            "trainer/lr": row["lr"],
        },
        step=row["epoch_total"],
    )


def _predict(work: _Work, model: nn.Module, loader: Loader, split: str) -> Predictions:
    ids = [work.plan.data.ids[i] for i in work.examined.splits[split]]
    label = f"{work.planned.name} {split}"
    return predict(model, loader, ids, amp=work.plan.amp, world=work.plan.world, label=label)


def _predict_views(work: _Work, model: nn.Module, plain: Mapping[str, Predictions]) -> ViewPredictions | None:
    """Average what the model says of validation and test over their views, one view after the other.

    plain: its predictions of each, which are those of the first view. Nothing is chosen by the result.
    """
    planned = work.planned
    _, *others = planned.views
    if not others:
        return None
    averaged: dict[str, Predictions] = {}
    for split, predictions in plain.items():
        mean = MeanOfViews()
        mean.add(predictions)
        for recipe, views in itertools.groupby(others, key=lambda view: view.recipe):
            with work.loaders.of(work.examined.splits[split], recipe, seed=planned.seed) as loader:
                for view in views:
                    loader.set_epoch(view.epoch)
                    mean.add(_predict(work, model, loader, split))
        averaged[split] = dataclasses.replace(predictions, logits=mean.logits())
    return ViewPredictions(tta=planned.tta, num_views=1 + len(others), **averaged)


def _print_result(trained: TrainResult, test: dict[str, Any], cost: ModelCost | None) -> None:
    low, high = test["accuracy_ci95"]
    views = test.get("tta")
    print(
        f"  test accuracy {test['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), macro F1 "
        f"{test['macro_f1']:.4f}, ECE {test['ece']:.4f} ({test['ece_bins']} bins)\n"
        + (f"  {_describe_tta(views)}\n" if views else "")
        + f"  trained in {trained.training_seconds:.1f} s at {trained.images_per_second:,.0f} img/s, best epoch "
        f"{trained.best_epoch}"
    )
    if cost is not None:
        print(
            f"  the model takes {cost.macs / 1e9:.3g} GMACs and {cost.one_image_ms.text} ms an image, "
            f"{cost.images_per_second:,.0f} img/s in batches of {cost.setting.batch_size}"
        )


def _describe_tta(views: Mapping[str, Any]) -> str:
    gain = views["differences"]["accuracy"]
    return (
        f"with {describe_views(views['views'], views['num_views'])}: test accuracy {views['accuracy']:.4f} "
        f"({gain['difference']:+.4f}, {gain['verdict']}), ECE {views['ece']:.4f}"
    )


def _summarise(tracked: TrackedRun, trained: TrainResult, metrics: dict[str, Any]) -> None:
    scores = ("accuracy", "macro_f1", "weighted_f1", "ece")
    tracked.summarise(
        {
            **{f"test/{name}": metrics[name] for name in scores},
            **({f"test_tta/{name}": metrics["tta"][name] for name in scores} if "tta" in metrics else {}),
            **_of_validation(trained, metrics),
        }
    )


def _of_validation(trained: TrainResult, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "trainer/training_seconds": trained.training_seconds,
        "evaluation/best_epoch": trained.best_epoch,
        "evaluation/val_accuracy": metrics["val"]["accuracy"],
    }


def _write_analysis(work: _Work, model: nn.Module, test: Predictions) -> None:
    """Write what the answers on the test split tell beside scores: mistakes, their conditions, what was looked at."""
    folder, planned, metadata, data = work.folder, work.planned, work.examined.metadata, work.plan.data
    assert metadata is not None  # on rank 0, which writes
    with work.steps.step(MISCLASSIFIED_FILE):
        write_misclassified(folder, test, data.class_names, metadata.splits, planned.eval_recipe, planned.title)
    with work.steps.step(PREDICTION_GRID_FIGURE):
        # By the seed of the settings, so that every run shows the same images.
        write_prediction_grid(
            folder, test, data.class_names, metadata.splits, planned.eval_recipe, planned.title, work.plan.config.seed
        )
    with work.steps.step(QUALITY_ERROR_FILE):
        write_quality_error(folder, test, metadata.quality, planned.title)
    here = work.loaders.in_this_process()
    with work.steps.step(EXPLANATIONS_FOLDER):
        write_explanations(
            folder,
            model,
            lambda index: here.of(index, planned.eval_recipe, seed=planned.seed),
            test,
            data,
            planned.eval_recipe,
            title=planned.title,
            seed=planned.seed,
        )


def _cost(work: _Work, model: nn.Module) -> ModelCost | None:
    """Measure what a model costs in evaluation, or take it from an earlier run of the same model at the same size."""
    plan, planned = work.plan, work.planned
    num_classes = plan.data.num_classes
    # Batches of training: those of evaluation may be too large to be answered again and again on a CPU.
    where: dict[str, Any] = {
        "device": plan.device, "amp": plan.amp, "batch_size": max(1, plan.batch_size // plan.world.size),
        "channels_last": plan.config.channels_last,
    }  # fmt: skip
    with work.steps.step("cost"):
        setting = cost_setting(planned.spec, num_classes, **where)
        measured = (run.cost for run in work.earlier if run.cost is not None)
        known = next((each for each in measured if each.setting == setting), None)
        if known is None:
            of_model = MeasuredModel(spec=planned.spec, model=model.eval(), num_classes=num_classes)
            [known] = measure_costs([of_model], seconds=_COST_SECONDS, **where)
        return known
    return None


def _session(plan: Plan) -> dict[str, Any]:
    """Say where this process computes, and with which switches."""
    return {
        "device": str(plan.device),
        "device_name": torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else cpu_name(),
        "num_processes": plan.world.size,
        "bn_sees": plan.bn_sees,
        "eval_batch_size": plan.eval_batch_size,
        "step": {name: value for name, value in dataclasses.asdict(plan.step).items() if name != "amp"},
    }


def _describe_run(work: _Work, trained: TrainResult, weights: str, backends: dict[str, str]) -> dict[str, Any]:
    """Say what a record has beside what W&B knows."""
    plan, planned, splits = work.plan, work.planned, work.examined.splits
    profile: dict[str, Any] = {}
    with work.steps.step("profile"):
        # Counting takes as long as a short epoch, which is too long for a trial.
        flops = [
            None
            if (plan.config.cache_features and phase.mode == "head_only") or work.trial is not None
            else count_flops(planned.spec, plan.data.num_classes, *phase.stage)
            for phase in planned.phases
        ]
        profile = summarise_profile(trained.history, flops, _peak(plan, trained.sessions), plan.world.size)
    return {
        "strategy_name": planned.strategy_name,
        "recipe_name": planned.recipe_name,
        "phase_plan": " -> ".join(map(str, planned.phases)),
        "weights": weights,
        "train_recipe": planned.train_recipe.as_dict(),
        "eval_recipe": planned.eval_recipe.as_dict(),
        "num_images": {split: len(index) for split, index in splits.items()},
        "loaders": backends,
        **_session(plan),
        "amp": str(plan.amp).removeprefix("torch.") if plan.amp else None,
        "bn_when_frozen": plan.config.bn_when_frozen,
        "cache_features": plan.config.cache_features,
        "training_seconds": trained.training_seconds,
        "training_seconds_note": TIMING_NOTE,
        "training_scores_note": mixed_scores_note(planned.phases),
        "checkpoint_seconds": trained.checkpoint_seconds,
        "images_per_second": trained.images_per_second,
        "best_epoch": trained.best_epoch,
        "best_val_accuracy": trained.best_val_accuracy,
        "sessions": trained.sessions,
        "profile": profile,
        "data_notice": plan.data.facts.notice,
        "test_was_read": plan.config.test,
        "not_made": dict(work.steps.failed),
    }


def _peak(plan: Plan, sessions: list[dict[str, Any]]) -> float | None:
    """Peak of one device in operations a second, where it is known and the run was always on the same ones."""
    if len({(session["device_name"], session["num_processes"]) for session in sessions}) > 1:
        return None
    return peak_flops(plan.device, plan.amp, plan.config.tf32)
