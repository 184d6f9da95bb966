"""A plan carried out: every run, every artifact, one comparison, one report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace

import numpy as np
import torch

from dogs_accel.datasets.facts import DATASET_FILE
from dogs_accel.eda.files import METADATA_FILE, NORMALISATION_FILE, SPLIT_FILE
from dogs_accel.experiment.describe import describe_estimates
from dogs_accel.experiment.estimate import Estimate, estimate_run
from dogs_accel.experiment.examine import ExaminedData, examine_data
from dogs_accel.experiment.loaders import Loaders
from dogs_accel.experiment.outcome import describe_results, describe_validation
from dogs_accel.experiment.plan import Plan, PlannedRun
from dogs_accel.experiment.run import execute_run, require_same_runs
from dogs_accel.report.page import write_report
from dogs_accel.results.folder import RunsFolder, read_record
from dogs_accel.results.layout import (
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    NOT_MADE_FILE,
    REPORT_FILE,
    history_file,
    record_path,
    record_paths,
    run_folder,
)
from dogs_accel.results.reading import missing_columns, read_table
from dogs_accel.results.run import Run
from dogs_accel.results.tables import note_not_made, write_tables
from dogs_accel.runtime.environment import describe_environment
from dogs_accel.runtime.files import (
    BusyError,
    is_unused,
    only_process_in,
    remove_partial,
    update_manifest,
    write_json,
    write_manifest,
)
from dogs_accel.runtime.memory import keep_freed_memory
from dogs_accel.runtime.precision import set_numerics
from dogs_accel.runtime.terminal import escaped
from dogs_accel.steps import Steps
from dogs_accel.training.checkpoint import CheckpointError
from dogs_accel.training.phases import MONITORED
from dogs_accel.training.tracking import WANDB_FOLDER
from pipelines.cores import available_cores


def run_plan(plan: Plan, loaders: Loaders) -> None:
    """Run a plan on its device and print the result."""
    set_numerics(tf32=plan.config.tf32, deterministic=plan.config.deterministic)
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)
    else:
        keep_freed_memory()
        if plan.world.size > 1:  # torchrun leaves one thread to each
            torch.set_num_threads(max(1, available_cores() // plan.world.local_size))
    if plan.config.dry_run:
        dry_run(plan, loaders)
    else:
        folder = execute_plan(plan, loaders)
        if plan.world.is_rank_zero:  # which has written what is described
            if plan.config.test:
                _report(folder)
            else:
                print(f"\n{describe_validation(folder)}")


def _report(folder: RunsFolder) -> None:
    """Write the report and describe the results; what cannot be made is said."""
    steps = Steps(folder.folder, "report")
    with steps.step(REPORT_FILE):
        write_report(folder, steps.step)
    if steps.failed:
        noted = note_not_made(folder.folder, (folder.content(NOT_MADE_FILE) or {}) | steps.failed)
        update_manifest(folder.folder, [] if noted is None else [noted])
    with steps.step("summary"):
        print(f"\n{describe_results(folder)}")
    if not_made := [*folder.not_made, *steps.failed]:
        print(
            f"finished, but not made: {escaped('; '.join(not_made))}; once the cause is gone, dogs-accel report "
            f"{shlex.quote(str(folder.folder))} makes the tables over the runs and the report"
        )
    if REPORT_FILE not in steps.failed:
        print(f"report: {escaped(folder.folder / REPORT_FILE)}")


def execute_plan(plan: Plan, loaders: Loaders) -> RunsFolder:
    """Run everything and write the results.

    Each run's files are there as soon as it ends, and the comparison and the manifest cover what has ended, whatever
    stops the rest.
    """
    with ExitStack() as stack:
        plan.world.broadcast(lambda: _open_folder(plan, stack))
        return _execute_runs(plan, loaders)


def _execute_runs(plan: Plan, loaders: Loaders) -> RunsFolder:
    runs: list[Run] = []
    with _manifest_in_the_end(plan):
        examined = _examine(plan, loaders)
        plan.world.local_rank_zero_first(lambda: _build_stores(loaders))
        for planned in plan.runs:
            runs.append(execute_run(plan, planned, loaders, examined, runs))
            if plan.world.is_rank_zero and plan.config.test:
                steps = Steps(plan.out, "tables over the runs")
                write_tables(plan.out, runs, plan.data.facts, steps.step)
                note_not_made(plan.out, {**examined.not_made, **steps.failed})
    return _results(plan, runs, examined)


@contextmanager
def _manifest_in_the_end(plan: Plan) -> Iterator[None]:
    """Write the manifest of what is there, however the block ends; what ended it is not hidden by a failure to."""

    def write() -> None:
        if plan.world.is_rank_zero:
            # W&B keeps writing to its own folder, and has checksums of its own.
            write_manifest(plan.out, leave_out=(WANDB_FOLDER,))

    try:
        yield
    except BaseException:
        with suppress(OSError):
            write()
        raise
    write()


def _examine(plan: Plan, loaders: Loaders) -> ExaminedData:
    """Examine the data on rank 0; the others get all of it but the metadata."""
    here: list[ExaminedData] = []

    def examine() -> ExaminedData:
        here.append(examine_data(plan, loaders, lambda examined: require_same_runs(plan, examined)))
        return replace(here[0], metadata=None)

    for_others = plan.world.broadcast(examine)
    return here[0] if here else for_others


def _results(plan: Plan, runs: list[Run], examined: ExaminedData) -> RunsFolder:
    """Gather what was made, as `results.folder.read_runs_folder` would find it."""
    others = {path.parent.name for path in record_paths(plan.out)} - {run.name for run in runs}
    metadata, known = examined.metadata, {}
    if metadata is not None:
        known = {
            METADATA_FILE: metadata.quality,
            SPLIT_FILE: metadata.splits,
            DATASET_FILE: metadata.facts.as_json(),
            NORMALISATION_FILE: metadata.normalisation.as_json(),
        }
    return RunsFolder(plan.out, runs, sorted(others), known)


def _build_stores(loaders: Loaders) -> None:
    for text in loaders.build_stores():
        print(text)


def _open_folder(plan: Plan, stack: ExitStack) -> None:
    """Make the folder of results, or the one that is there ready to go on with, and keep others out of it."""
    plan.out.mkdir(parents=True, exist_ok=True)
    stack.enter_context(only_process_in(plan.out))
    if not plan.resumes and not is_unused(plan.out):  # it was when the run was planned
        raise BusyError(f"out: another process has written to {plan.out} meanwhile, expected another folder")
    remove_partial(plan.out)
    if not plan.resumes:
        write_json(plan.out / CONFIG_FILE, asdict(plan.config))
    if not (plan.out / ENVIRONMENT_FILE).exists():
        write_json(plan.out / ENVIRONMENT_FILE, describe_environment())


def epochs_left(plan: Plan, planned: PlannedRun) -> list[int] | None:
    """Count the epochs of each phase that are still to be trained, None of a run that is finished.

    Raises CheckpointError where what the run has written of itself cannot be read.
    """
    folder = run_folder(plan.out, planned.spec.family, planned.name)
    left = [phase.epochs for phase in planned.phases]
    if not plan.resumes or not record_path(folder).exists():
        return left
    try:
        record, history = read_record(record_path(folder)), read_table(folder / history_file(planned.name))
    except ValueError as error:
        raise CheckpointError(f"checkpoint: {error}; remove it to run that run again") from error
    if record.is_finished:
        return None
    if history is None or missing_columns(history, ["stage", *MONITORED.values()]):
        return left
    for stage, phase in enumerate(planned.phases, start=1):
        monitored = history.loc[history["stage"] == stage, MONITORED[phase.monitor]].tolist()
        left[stage - 1] = 0 if phase.stops_after(monitored) else max(0, phase.epochs - len(monitored))
    return left


def dry_run(plan: Plan, loaders: Loaders) -> None:
    """Say how long the plan will take."""
    streaming = loaders.without_new_stores()
    if text := streaming.describe_others(loaders):
        print(text)
    splits = plan.splits
    if plan.config.on_bad_image == "skip":
        bad = loaders.known_bad()
        splits = {name: index[~np.isin(index, bad)] for name, index in splits.items()}
    left = plan.world.broadcast(lambda: {run.name: epochs_left(plan, run) for run in plan.runs})
    estimates: dict[str, Estimate] = {}
    for run in plan.runs:
        # Another seed takes as long, unless a part of it is done.
        name = run.name if plan.resumes else run.configuration
        if name in estimates or left[run.name] is None:
            continue
        recipes = {name: run.train_recipe if name == "train" else run.eval_recipe for name in splits}
        with ExitStack() as stack:
            made = {
                split: stack.enter_context(
                    streaming.of(splits[split], recipes[split], shuffle=split == "train", seed=run.seed)
                )
                for split in splits
            }
            estimates[name] = estimate_run(
                run.spec,
                run.phases,
                made,
                plan.data.num_classes,
                plan.step,
                cache_features=plan.config.cache_features,
                num_views=len(run.views),
                epochs_left=left[run.name],
            )
    print(describe_estimates(plan, estimates))
