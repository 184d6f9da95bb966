"""The benchmark: matched runs of a CNN and a Vision Transformer, every artifact, one comparison.

python -m dogs_accel.benchmark --gpu 0 --data DIR
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.distributed import DistError

from dogs_accel.config import CONFIG_FILE, add_arguments, parse_config
from dogs_accel.datasets.splits import SPLITS
from dogs_accel.eda.files import BAD_IMAGES_FILE
from dogs_accel.eda.metadata import describe_metadata, write_metadata
from dogs_accel.eda.run import write_eda
from dogs_accel.estimate import Estimate, estimate_run
from dogs_accel.evaluation.pairwise import ComparedRun
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.experiment import execute_run
from dogs_accel.explain.run import EXPLANATIONS_FOLDER
from dogs_accel.loading import (
    build_stores,
    choose_loaders,
    describe_loaders,
    split_loader,
    without_known_bad,
    without_new_stores,
)
from dogs_accel.plan import Plan, check_alike, describe_plan, describe_sizes, make_plan
from dogs_accel.report import write_report
from dogs_accel.results.clusters import write_confusion_clusters
from dogs_accel.results.comparison import (
    MEASURES,
    PAIRWISE_FILE,
    RunOutcome,
    compare_outcome,
    comparison_table,
    describe_pairs,
    has_repeats,
    repeats_table,
    write_comparison,
)
from dogs_accel.results.per_breed import write_per_breed
from dogs_accel.runtime.environment import ENVIRONMENT_FILE, describe_environment
from dogs_accel.runtime.files import BusyError, only_process_in, remove_partial, write_json, write_manifest
from dogs_accel.runtime.memory import keep_freed_memory
from dogs_accel.runtime.out_of_memory import BatchTooLargeError, describe_out_of_memory, is_out_of_memory
from dogs_accel.runtime.precision import set_numerics
from dogs_accel.runtime.processes import (
    ALONE,
    LostProcessError,
    OtherProcessError,
    World,
    joined,
    world_from_environment,
)
from dogs_accel.training.checkpoint import CheckpointError
from dogs_accel.training.features import FeatureError
from dogs_accel.training.tracking import WANDB_FOLDER, TrackingError
from dogs_accel.training.trainer import DivergedError
from pipelines import BadImageError
from pipelines.cores import available_cores
from pipelines.store.index import StoreError


def execute_plan(plan: Plan) -> list[RunOutcome]:
    """Run everything and write the results.

    Each run's files are there as soon as it ends, and the comparison and the manifest cover what has ended, whatever
    stops the rest.
    """
    with ExitStack() as stack:
        plan.world.from_first(lambda: _open_folder(plan, stack))
        return _execute_runs(plan)


def _execute_runs(plan: Plan) -> list[RunOutcome]:
    outcomes: list[RunOutcome] = []
    compared: list[ComparedRun] = []
    try:
        splits = plan.world.from_first(lambda: examine_data(plan))
        plan = dataclasses.replace(plan, splits=splits)
        plan.world.first_here(lambda: _build_stores(plan))
        for run in plan.runs:
            outcomes.append(execute_run(plan, run))
            if plan.world.is_first:
                test = Predictions.load(plan.out / run.spec.family / run.name / "test_logits.npz")
                compared.append(compare_outcome(outcomes[-1], test))
                write_comparison(plan.out, outcomes, compared)
                write_per_breed(plan.out)
                write_confusion_clusters(plan.out)
    finally:
        if plan.world.is_first:
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


def examine_data(plan: Plan) -> dict[str, NDArray[np.int64]]:
    """Decode every image once, write the metadata and its figures, and return the splits without the bad files.

    Raises BadImageError where there are any and --on-bad-image is not skip, or where too little remains: a split
    without an image, a breed without a training image.
    """
    report = write_metadata(plan.data, plan.splits, plan.out, num_threads=plan.config.num_threads)
    print(describe_metadata(report))
    bad, listed = report.bad_index, plan.out / BAD_IMAGES_FILE
    if len(bad) and plan.config.on_bad_image == "error":
        raise BadImageError(
            f"{len(bad)} of {len(plan.data)} files cannot be decoded, see {listed}; --on-bad-image skip leaves them out"
        )
    splits = {name: index[~np.isin(index, bad)] for name, index in plan.splits.items()}
    if len(bad):
        print(f"left out: {len(bad)} files; there remain {describe_sizes(splits)} images")
    for name, index in splits.items():
        if len(index) == 0:
            raise BadImageError(f"no image of the {name} split can be decoded, see {listed}")
    untaught = set(plan.data.labels[plan.splits["train"]]) - set(plan.data.labels[splits["train"]])
    if untaught:
        breeds = ", ".join(plan.data.class_names[label] for label in sorted(untaught))
        raise BadImageError(f"no training image of {breeds} can be decoded, see {listed}")
    write_eda(plan.out, plan.out / "eda", seed=plan.config.seed, recipe=plan.runs[0].train_recipe)
    return splits


def describe_outcomes(plan: Plan, outcomes: Sequence[RunOutcome]) -> str:
    """Lay out the result as text for a terminal: the table, the differences that matter, and what was written."""
    shown = _describe_repeats(outcomes) if has_repeats(outcomes) else _describe_runs(outcomes)
    differences = describe_pairs(pd.read_csv(plan.out / PAIRWISE_FILE), outcomes)
    listed = "\n".join(f"  {name}" for name in _listed_files(plan.out))
    return "\n\n".join(filter(None, [shown, differences, f"written to {plan.out}\n{listed}"]))


def _listed_files(folder: Path) -> list[str]:
    """Name the files of a folder, single pictures by their folder alone."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    pictures = Counter(path.parent for path in paths if path.parent.name == EXPLANATIONS_FOLDER)
    files = [str(path) for path in paths if path.parts[0] != WANDB_FOLDER and path.parent not in pictures]
    files += [f"{parent}/ ({number} pictures)" for parent, number in pictures.items()]
    if (folder / WANDB_FOLDER).is_dir():
        files.append(f"{WANDB_FOLDER}/ (the runs of Weights & Biases)")
    return sorted(files)


def _describe_runs(outcomes: Sequence[RunOutcome]) -> str:
    table = comparison_table(outcomes)
    table["95 % interval"] = ["{:.4f} to {:.4f}".format(*run.metrics["accuracy_ci95"]) for run in outcomes]
    columns = ["Model", "Training strategy", "Test accuracy", "95 % interval", "Macro F1", "ECE", "Train time (s)"]
    return _show(table[columns])


def _describe_repeats(outcomes: Sequence[RunOutcome]) -> str:
    table = repeats_table(outcomes)
    ends = zip(table["Test accuracy 95 % low"], table["Test accuracy 95 % high"], strict=True)
    table["95 % interval"] = ["" if np.isnan(low) else f"{low:.4f} to {high:.4f}" for low, high in ends]
    table = table.rename(columns={f"{measure} mean": measure for measure in MEASURES})
    columns = ["Model", "Training strategy", "Seeds", "Test accuracy", "95 % interval", "Macro F1", "ECE"]
    seeds = " or ".join(map(str, sorted({num for num in table["Seeds"] if num > 1})))
    note = f"means; 95 % interval of the mean over {seeds} seeds (Student's t)"
    return f"{_show(table[[*columns, 'Train time (s)']])}\n{note}"


def _show(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format="{:.4f}".format, formatters={"Train time (s)": "{:.1f}".format})


def describe_estimates(plan: Plan, estimates: Mapping[str, Estimate]) -> str:
    """Lay out the times of a dry run, by configuration, as text for a terminal."""
    lines = ["estimated from a few steps on this machine"]
    num_runs = Counter(run.configuration for run in plan.runs)
    for name, estimate in estimates.items():
        times = f"{num_runs[name]} x " if num_runs[name] > 1 else ""
        lines.append(
            f"  {name}: {times}{estimate.minutes:.1f} min "
            f"(loader {estimate.loader_rate:,.0f} img/s, training {estimate.train_rate:,.1f} img/s)"
        )
    total = sum(num_runs[name] * estimate.minutes for name, estimate in estimates.items())
    lines.append(f"  in all: {total:.1f} min")
    return "\n".join(lines)


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
        if plan.world.is_first:  # which has written what is described
            report = write_report(plan.out)
            print(f"\n{describe_outcomes(plan, outcomes)}\nreport: {report}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a wrong flag, path or file ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m dogs_accel.benchmark", description=__doc__.splitlines()[0])
    add_arguments(parser)
    world = ALONE
    try:
        with ExitStack() as stack:
            world = _join(parser, stack)
            _run(parser, arguments, world)
    except OtherProcessError as error:
        if isinstance(error, LostProcessError):
            print(_error_line(parser, error), end="", file=sys.stderr, flush=True)
        world.await_end()
        return 2
    return 0


def _join(parser: argparse.ArgumentParser, stack: ExitStack) -> World:
    """Connect this process with the others, of which the first alone prints, until the stack is closed."""
    try:
        world = world_from_environment()
        stack.enter_context(joined(world))
    except (ValueError, DistError) as error:
        parser.exit(2, _error_line(parser, error))
    if not world.is_first:
        stack.enter_context(redirect_stdout(io.StringIO()))
    return world


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, world: World) -> None:
    try:
        config = world.from_first(lambda: parse_config(parser, arguments).with_folder())
        plan = world.first_here(lambda: choose_loaders(make_plan(config, world)))
        check_alike(plan)
    except (ValueError, OSError) as error:
        parser.exit(2, _error_line(parser, error))
    if plan.data.notice:
        print(plan.data.notice)
    print(f"{describe_plan(plan)}\n{describe_loaders(plan)}")
    try:
        run_plan(plan)
    except (
        BadImageError, BatchTooLargeError, BusyError, CheckpointError, DivergedError, FeatureError, StoreError,
        TrackingError,
    ) as error:  # fmt: skip
        if isinstance(error, DivergedError) and not world.is_first:  # all have the same loss
            raise OtherProcessError(str(error)) from error
        parser.exit(2, _error_line(parser, error))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parser.exit(2, _error_line(parser, describe_out_of_memory(error)))
    except KeyboardInterrupt:
        message = f"\nstopped; what had ended is in {plan.out}, and --resume {plan.out} goes on\n"
        parser.exit(130, message if world.is_first else None)


def _error_line(parser: argparse.ArgumentParser, error: Exception | str) -> str:
    """One line, which names the process where there are several."""
    rank = os.environ.get("RANK")
    return f"{parser.prog}: {f'rank {rank}: ' if rank is not None else ''}error: {error}\n"


if __name__ == "__main__":
    sys.exit(main())
