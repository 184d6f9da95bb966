"""`dogs-accel sweep --confirm`: the best trials and a baseline with other seeds, and test for the chosen one alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dogs_accel.datasets import Dataset
from dogs_accel.datasets.facts import DATASET_FILE
from dogs_accel.eda.tables import count_text
from dogs_accel.evaluation.predictions import Predictions, predict
from dogs_accel.experiment.examine import ExaminedData, examine_data
from dogs_accel.experiment.loaders import Loaders, choose_loaders
from dogs_accel.experiment.plan import Plan, make_plan, plan_of_others
from dogs_accel.experiment.run import execute_run
from dogs_accel.inference.trained import load_model
from dogs_accel.results.layout import CONFIG_FILE, ENVIRONMENT_FILE, logits_file
from dogs_accel.results.reading import read_content, read_predictions
from dogs_accel.results.run import Run
from dogs_accel.runtime.environment import describe_environment
from dogs_accel.runtime.files import only_process_in, remove_partial, write_json
from dogs_accel.runtime.memory import keep_freed_memory
from dogs_accel.runtime.precision import set_numerics
from dogs_accel.runtime.terminal import escaped
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
)
from dogs_accel.sweep.engine.trial import DATA_FOLDER, LOG_FILE, Where
from dogs_accel.sweep.findings.confirmed import CONFIRMATION_FILE
from dogs_accel.sweep.findings.run import read_sweep_trials, write_all_findings
from dogs_accel.sweep.findings.selection import SelectionBias, selection_bias
from dogs_accel.sweep.settings import read_sweep
from dogs_accel.training.checkpoint import LAST_CHECKPOINT_FILE
from dogs_accel.training.step import StepSettings, prepare_model
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
    trials = read_sweep_trials(folder, sweep)
    plan = make_confirm_plan(sweep, trials, top=top, seeds=seeds, baseline=baseline)
    root = folder / CONFIRM_FOLDER
    root.mkdir(exist_ok=True)
    with only_process_in(root):
        plan = kept_plan(folder, plan)
        yield from describe_confirm_plan(plan)
        found = read_content(folder / CONFIRMATION_FILE)
        if found is not None and found["test"] is not None:
            yield "confirmed already, and test was read"
        else:
            bias = selection_bias(trials.values, int(trials.counted["num_val"].max()), num_pruned=trials.num_pruned)
            yield from _confirm(folder, plan, where, bias)
        *_, report = write_all_findings(folder)
        yield f"report: {escaped(report)}"


def _confirm(folder: Path, plan: ConfirmPlan, where: Where, bias: SelectionBias) -> Iterator[str]:
    trainer = _CandidateTrainer(folder, where)
    yield from trainer.prepare(plan.planned[0])
    runs: dict[str, dict[int, Run]] = {}
    for each in plan.planned:
        runs[each.candidate.name] = trainer.train(each)
        values = ", ".join(f"{run.val_accuracy:.4f}" for run in runs[each.candidate.name].values())
        yield f"{each.candidate.name}: validation accuracy {values}"
    by_name = {each.candidate.name: each.candidate for each in plan.planned}
    answers = {
        name: (by_name[name], {seed: run.predictions("val") for seed, run in by_seed.items()})
        for name, by_seed in runs.items()
    }
    num_val = len(next(iter(next(iter(answers.values()))[1].values())).labels)
    found = confirmation_of(
        judge(answers), seeds=plan.seeds, num_val=num_val, expected_bias=bias.expected,
        num_complete=plan.num_complete, num_pruned=bias.num_pruned,
    )  # fmt: skip
    write_json(folder / CONFIRMATION_FILE, found.as_json())
    yield from found.sentences
    # What is known stands in the report, whatever becomes of test.
    write_all_findings(folder)
    # The test split is read here, once, after every choice has been made on validation.
    chosen = next(each for each in plan.planned if each.candidate.name == found.chosen)
    test, num_left_out = trainer.test(chosen, runs[found.chosen])
    num_test = len(next(iter(test.values())).labels)
    found = with_test(found, score_of(chosen.candidate, test), num_test, num_left_out)
    write_json(folder / CONFIRMATION_FILE, found.as_json())
    yield describe_confirmation(found)[-1]


class _CandidateTrainer:
    """Trains candidates on the data of the sweep, which are opened and decoded once."""

    def __init__(self, folder: Path, where: Where) -> None:
        self._folder, self._where = folder, where
        self._plan: Plan | None = None
        self._loaders: Loaders | None = None
        self._examined: ExaminedData | None = None

    def prepare(self, first: Planned) -> Iterator[str]:
        """Open the data without test, decode every file once, and build the store; says what is done."""
        data_folder = self._folder / CONFIRM_FOLDER / DATA_FOLDER
        plan = make_plan(dataclasses.replace(first.config, **self._own(data_folder, resumes=True)))
        set_numerics(tf32=plan.config.tf32, deterministic=plan.config.deterministic)
        if plan.device.type == "cuda":
            torch.cuda.set_device(plan.device)
        else:
            keep_freed_memory()
        loaders = choose_loaders(plan)
        yield loaders.describe()
        data_folder.mkdir(parents=True, exist_ok=True)
        with (data_folder / LOG_FILE).open("a", encoding="utf-8") as log, redirect_stdout(log):
            self._examined = examine_data(plan, loaders, lambda _: None, figures=False)
        yield from loaders.build_stores()
        self._plan, self._loaders = plan, loaders

    def train(self, planned: Planned) -> dict[int, Run]:
        """Train a candidate with every seed into its folder, or find what is there; by seed."""
        assert self._plan is not None
        assert self._loaders is not None
        assert self._examined is not None
        folder = self._folder / planned.folder
        resumes = (folder / CONFIG_FILE).is_file()
        config = dataclasses.replace(planned.config, **self._own(folder, resumes=resumes))
        plan = plan_of_others(self._plan, config)
        loaders = choose_loaders(plan, self._loaders)
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        for name, content in {
            ENVIRONMENT_FILE: describe_environment(),
            DATASET_FILE: plan.data.facts.as_json(),
            CONFIG_FILE: asdict(dataclasses.replace(plan.config, resume=None)),
        }.items():
            if not (folder / name).exists():
                write_json(folder / name, content)
        plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, resume=str(folder)))
        runs = {}
        with (folder / LOG_FILE).open("a", encoding="utf-8", buffering=1) as log, redirect_stdout(log):
            for run in plan.runs:
                runs[run.seed] = execute_run(plan, run, loaders, self._examined)
                (runs[run.seed].folder / LAST_CHECKPOINT_FILE).unlink(missing_ok=True)  # three times the weights
        return runs

    def test(self, planned: Planned, runs: Mapping[int, Run]) -> tuple[dict[int, Predictions], int]:
        """Ask the runs of a candidate for the test split, which is opened here.

        Returns the answers by seed, and how many files were left out since they cannot be decoded. Raises BadImageError
        as `readable_images` does.
        """
        folder = self._folder / planned.folder
        config = dataclasses.replace(planned.config, **self._own(folder, resumes=True), test=True)
        plan = make_plan(config)
        data = plan.data.subset(plan.splits["test"])
        found = {seed: read_predictions(run.folder / logits_file("test")) for seed, run in runs.items()}
        if any(answers is None for answers in found.values()):
            data = readable_images(data, skip=config.on_bad_image == "skip", num_threads=plan.config.num_threads)
        answered: dict[int, Predictions] = {}
        for planned_run in plan.runs:
            run = runs[planned_run.seed]
            answers = found[planned_run.seed]
            if answers is None:
                answers = _answer(plan, planned_run.eval_recipe, data, run)
                answers.save(run.folder / logits_file("test"))
            answered[planned_run.seed] = answers
        return answered, len(plan.splits["test"]) - len(next(iter(answered.values())).labels)

    def _own(self, folder: Path, *, resumes: bool) -> dict[str, Any]:
        own: dict[str, Any] = {"out": str(folder), "resume": str(folder) if resumes else None, "gpu": None}
        own |= {"device": self._where.device, "wandb": self._where.wandb}
        return own if self._where.num_threads is None else own | {"num_threads": self._where.num_threads}


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
