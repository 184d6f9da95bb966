"""`dogs-accel sweep --confirm`: the best trials and a baseline with other seeds, and test for the chosen one alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from dogs_accel.datasets import Dataset
from dogs_accel.ending import CheckFailedError
from dogs_accel.evaluation.predictions import Predictions, predict
from dogs_accel.experiment.plan import Plan
from dogs_accel.experiment.run import execute_run
from dogs_accel.inference.trained import load_model
from dogs_accel.results.layout import CONFIG_FILE, logits_file
from dogs_accel.results.reading import read_content, read_predictions
from dogs_accel.results.run import Run
from dogs_accel.runtime.files import only_process_in, write_json
from dogs_accel.runtime.terminal import count_text, escaped
from dogs_accel.sweep.confirming.judge import (
    confirmation_of,
    describe_confirmation,
    judge,
    score_of,
    with_test,
)
from dogs_accel.sweep.confirming.plan import (
    CONFIRM_FOLDER,
    ConfirmPlan,
    Planned,
    describe_confirm_plan,
    kept_plan,
    make_confirm_plan,
    require_same_confirmation,
)
from dogs_accel.sweep.engine.opened import LOG_FILE, OpenedData, Where, begin_folder
from dogs_accel.sweep.engine.study import STUDY_JOURNAL_FILE, SweepStudy
from dogs_accel.sweep.findings.confirmed import CONFIRMATION_FILE
from dogs_accel.sweep.findings.run import point_of, read_sweep_trials, write_all_findings
from dogs_accel.sweep.settings import read_sweep
from dogs_accel.training.checkpoint import LAST_CHECKPOINT_FILE
from dogs_accel.training.step import StepSettings, prepare_model
from dogs_accel.training.trainer import DivergedError
from pipelines import BadImageError, Recipe, make_loader
from pipelines.decoding.files import decode_files

_TEST_LOADER = "torch"
"""The reference, which needs no store of the test images."""


def confirm(folder: Path, where: Where, *, top: int, seeds: int, baseline: Path | None = None) -> Iterator[str]:
    """Train the best trials of the sweep in a folder and a baseline with other seeds, choose one and test it.

    Says what it does, a line at a time. What is there already is not done again, so that the same command goes on where
    it was stopped. top: how many trials; seeds: of each candidate; baseline: a file of settings. Raises ValueError
    where the sweep has no complete trial, where the settings contradict each other, or where another confirmation was
    begun in the folder.
    """
    sweep = read_sweep(folder)
    if (folder / STUDY_JOURNAL_FILE).is_file():
        SweepStudy(folder, sweep).write_table()  # which a process that was killed may not have done
    trials = read_sweep_trials(folder, sweep)
    plan = make_confirm_plan(sweep, trials, top=top, seeds=seeds, baseline=baseline)
    root = folder / CONFIRM_FOLDER
    root.mkdir(exist_ok=True)
    with only_process_in(root):
        plan = kept_plan(folder, plan, has_own_baseline=baseline is not None)
        yield from describe_confirm_plan(plan)
        found = read_content(folder / CONFIRMATION_FILE)
        if found is not None:
            require_same_confirmation(folder, plan, found)
        if found is not None and found["test"] is not None:
            yield "confirmed already, and test was read"
        else:
            data = OpenedData(folder, where)
            # By the settings of a trial, whatever those of a baseline would open and split.
            yield from data.open(sweep.config(point_of(trials.best, sweep.space)))
            try:
                yield from _confirm(folder, plan, data)
            finally:
                data.close()
        *_, report = write_all_findings(folder)
        yield f"report: {escaped(report)}"


def _confirm(folder: Path, plan: ConfirmPlan, data: OpenedData) -> Iterator[str]:
    runs: dict[str, dict[int, Run]] = {}
    diverged: dict[str, str] = {}
    for each in plan.planned:
        name = each.candidate.name
        try:
            runs[name] = train_candidate(folder, each, data)
        except DivergedError as error:
            diverged[name] = error.what
            yield f"{name} is left out: {error.what}"
        else:
            values = ", ".join(f"{run.val_accuracy:.4f}" for run in runs[name].values())
            yield f"{name}: validation accuracy {values}"
    if not runs:
        raise CheckFailedError(f"no candidate can be trained with other seeds: {'; '.join(diverged.values())}")
    by_name = {each.candidate.name: each for each in plan.planned}
    answers = {
        name: (by_name[name].candidate, {seed: run.predictions("val") for seed, run in by_seed.items()})
        for name, by_seed in runs.items()
    }
    num_val = len(next(iter(next(iter(answers.values()))[1].values())).labels)
    found = confirmation_of(
        judge(answers), seeds=plan.seeds, num_val=num_val, expected_bias=plan.expected_bias,
        num_complete=plan.num_complete, num_pruned=plan.num_pruned, diverged=diverged,
    )  # fmt: skip
    write_json(folder / CONFIRMATION_FILE, found.as_json())
    yield from found.sentences
    # What is known stands in the report, whatever becomes of test.
    write_all_findings(folder)
    # The test split is read here, once, after every choice has been made on validation.
    chosen = by_name[found.chosen]
    test, num_left_out = ask_for_test(folder, chosen, runs[found.chosen], data)
    num_test = len(next(iter(test.values())).labels)
    found = with_test(found, score_of(chosen.candidate, test), num_test, num_left_out)
    write_json(folder / CONFIRMATION_FILE, found.as_json())
    yield describe_confirmation(found)[-1]


def train_candidate(folder: Path, planned: Planned, data: OpenedData) -> dict[int, Run]:
    """Train a candidate of the sweep in a folder with every seed, or find what is there; by seed.

    Raises DivergedError where its loss is not finite with one of them.
    """
    out = folder / planned.folder
    plan, loaders = data.plan_of(planned.config, out, resumes=(out / CONFIG_FILE).is_file())
    begin_folder(plan)
    plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, resume=str(out)))
    runs = {}
    with (out / LOG_FILE).open("a", encoding="utf-8", buffering=1) as log, redirect_stdout(log):
        for run in plan.runs:
            runs[run.seed] = execute_run(plan, run, loaders, data.examined)
            (runs[run.seed].folder / LAST_CHECKPOINT_FILE).unlink(missing_ok=True)  # three times the weights
    return runs


def ask_for_test(
    folder: Path, planned: Planned, runs: Mapping[int, Run], data: OpenedData
) -> tuple[dict[int, Predictions], int]:
    """Ask the runs of a candidate for the test split, which is opened here.

    Returns the answers by seed, and how many files were left out since they cannot be decoded. Raises BadImageError as
    `readable_images` does, and ValueError where answers that were kept are on other images.
    """
    plan = data.plan_with_test(planned.config, folder / planned.folder)
    test = plan.data.subset(plan.splits["test"])
    num_test, skip = len(test), plan.config.on_bad_image == "skip"
    files = {seed: run.folder / logits_file("test") for seed, run in runs.items()}
    kept = {seed: answers for seed, path in files.items() if (answers := read_predictions(path)) is not None}
    is_whole = len(kept) == len(files)
    if not is_whole:
        test = readable_images(test, skip=skip, num_threads=plan.config.num_threads)
    for seed, answers in kept.items():
        # Where nothing is asked nothing is decoded, and nobody knows which files were left out.
        require_same_test(files[seed], answers, test, may_lack=is_whole and skip)
    answered = dict(kept)
    for planned_run in plan.runs:
        if (seed := planned_run.seed) not in kept:
            answered[seed] = _answer(plan, planned_run.eval_recipe, test, runs[seed])
            answered[seed].save(files[seed])
    return answered, num_test - len(next(iter(answered.values())).labels)


def require_same_test(path: Path, answers: Predictions, test: Dataset, *, may_lack: bool) -> None:
    """Raise ValueError unless answers that were kept are on the images of a dataset, with their labels.

    may_lack: whether they may be on some of them alone.
    """
    kept, there = (dict(zip(each.ids, each.labels, strict=True)) for each in (answers, test))
    if kept.items() <= there.items() and (may_lack or len(kept) == len(there)):
        return
    common = len(kept.items() & there.items())
    raise ValueError(
        f"{path}: got answers on other test images than there are now ({len(kept):,} and {len(there):,}, {common:,} in "
        "common), expected the same; remove it to ask for them anew"
    )


def readable_images(data: Dataset, *, skip: bool, num_threads: int | None = None) -> Dataset:
    """Decode every file of a dataset, and return it without those that cannot be decoded.

    Raises BadImageError where there are any and skip is not said, or where nothing remains.
    """
    decoded = (file for files in decode_files(data.paths, num_threads=num_threads) for file in files)
    bad = {file.index: file.problem for file in decoded if file.problem is not None}
    if not bad:
        return data
    first = min(bad)
    what = f"{len(bad)} of {count_text(len(data), 'test file')} cannot be decoded, such as {data.paths[first]}: "
    what += f"{bad[first]}"
    if not skip:
        raise BadImageError(f'{what}; mend it and run this again; with on_bad_image = "skip" a sweep leaves them out')
    if len(bad) == len(data):
        raise BadImageError(what)
    return data.subset(np.setdiff1d(np.arange(len(data)), list(bad)))


def _answer(plan: Plan, recipe: Recipe, data: Dataset, run: Run) -> Predictions:
    """Ask the model of a run for images, as its evaluation would."""
    settings = StepSettings(channels_last=plan.config.channels_last)
    model = prepare_model(load_model(run), plan.device, settings)
    with make_loader(
        data.paths, data.labels, recipe, backend=_TEST_LOADER, batch_size=plan.eval_batch_size, device=plan.device,
        seed=run.seed, num_threads=plan.config.num_threads,
    ) as loader:  # fmt: skip
        return predict(model, loader, data.ids, amp=plan.amp, label=f"{run.name} test")
