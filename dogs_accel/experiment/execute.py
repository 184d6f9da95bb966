"""A plan carried out: every run, every artifact, one comparison."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

import torch

from dogs_accel.datasets.splits import SPLITS
from dogs_accel.evaluation.pairwise import ComparedRun
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.experiment.config import CONFIG_FILE
from dogs_accel.experiment.describe import describe_estimates, describe_outcomes
from dogs_accel.experiment.estimate import Estimate, estimate_run
from dogs_accel.experiment.examine import examine_data
from dogs_accel.experiment.loaders import (
    build_stores,
    describe_loaders,
    split_loader,
    without_known_bad,
    without_new_stores,
)
from dogs_accel.experiment.plan import Plan
from dogs_accel.experiment.run import execute_run
from dogs_accel.report import write_report
from dogs_accel.results.clusters import write_confusion_clusters
from dogs_accel.results.comparison import (
    RunOutcome,
    compare_outcome,
    write_comparison,
)
from dogs_accel.results.per_breed import write_per_breed
from dogs_accel.runtime.environment import ENVIRONMENT_FILE, describe_environment
from dogs_accel.runtime.files import only_process_in, remove_partial, write_json, write_manifest
from dogs_accel.runtime.memory import keep_freed_memory
from dogs_accel.runtime.precision import set_numerics
from dogs_accel.training.tracking import WANDB_FOLDER
from pipelines.cores import available_cores


def execute_plan(plan: Plan) -> list[RunOutcome]:
    """Run everything and write the results.

    Each run's files are there as soon as it ends, and the comparison and the manifest cover what has ended, whatever
    stops the rest.
    """
    with ExitStack() as stack:
        plan.world.broadcast(lambda: _open_folder(plan, stack))
        return _execute_runs(plan)


def _execute_runs(plan: Plan) -> list[RunOutcome]:
    outcomes: list[RunOutcome] = []
    compared: list[ComparedRun] = []
    try:
        splits = plan.world.broadcast(lambda: examine_data(plan))
        plan = dataclasses.replace(plan, splits=splits)
        plan.world.local_rank_zero_first(lambda: _build_stores(plan))
        for run in plan.runs:
            outcomes.append(execute_run(plan, run))
            if plan.world.is_rank_zero:
                test = Predictions.load(plan.out / run.spec.family / run.name / "test_logits.npz")
                compared.append(compare_outcome(outcomes[-1], test))
                write_comparison(plan.out, outcomes, compared)
                write_per_breed(plan.out)
                write_confusion_clusters(plan.out)
    finally:
        if plan.world.is_rank_zero:
            # W&B keeps writing to its own folder, and has checksums of its own.
            write_manifest(plan.out, leave_out=(WANDB_FOLDER,))
    return outcomes


def _build_stores(plan: Plan) -> None:
    for text in build_stores(plan):
        print(text)


def _open_folder(plan: Plan, stack: ExitStack) -> None:
    """Make the folder of results, or the one that is there ready to go on with, and keep others out of it."""
    plan.out.mkdir(parents=True, exist_ok=True)
    stack.enter_context(only_process_in(plan.out))
    remove_partial(plan.out)
    if not plan.resumes:
        write_json(plan.out / CONFIG_FILE, dataclasses.asdict(plan.config))
    if not (plan.out / ENVIRONMENT_FILE).exists():
        write_json(plan.out / ENVIRONMENT_FILE, describe_environment())


def dry_run(plan: Plan) -> None:
    """Say how long the plan will take."""
    chosen = plan.loaders
    plan = without_known_bad(without_new_stores(plan))
    if plan.loaders != chosen:
        print(describe_loaders(plan))
    estimates: dict[str, Estimate] = {}
    for run in plan.runs:
        if run.configuration in estimates:  # another seed takes as long
            continue
        with ExitStack() as stack:
            loaders = {split: stack.enter_context(split_loader(plan, run, split)) for split in SPLITS}
            estimates[run.configuration] = estimate_run(
                run.spec,
                run.phases,
                loaders,
                plan.data.num_classes,
                plan.step,
                cache_features=plan.config.cache_features,
            )
    print(describe_estimates(plan, estimates))


def run_plan(plan: Plan) -> None:
    """Run a plan on its device and print the result."""
    set_numerics(tf32=plan.config.tf32, deterministic=plan.config.deterministic)
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)
    else:
        keep_freed_memory()
        if plan.world.size > 1:  # torchrun leaves one thread to each
            torch.set_num_threads(max(1, available_cores() // plan.world.local_size))
    if plan.config.dry_run:
        dry_run(plan)
    else:
        outcomes = execute_plan(plan)
        if plan.world.is_rank_zero:  # which has written what is described
            report = write_report(plan.out)
            print(f"\n{describe_outcomes(plan, outcomes)}\nreport: {report}")
