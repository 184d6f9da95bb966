"""What will run, what came of it and how long it will take, as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dogs_accel.experiment.data import describe_sizes
from dogs_accel.experiment.estimate import Estimate
from dogs_accel.experiment.plan import Plan, PlannedRun
from dogs_accel.explain.run import EXPLANATIONS_FOLDER
from dogs_accel.results.comparison import MEASURES, comparison_table, describe_pairs, has_repeats, repeats_table
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import PAIRWISE_FILE
from dogs_accel.results.run import Run
from dogs_accel.training.tracking import WANDB_FOLDER


def describe_plan(plan: Plan) -> str:
    """Say what will run, on what, as text for a terminal."""
    config, data = plan.config, plan.data
    amp = {None: "float32", torch.bfloat16: "bf16 AMP", torch.float16: "fp16 AMP"}[plan.amp]
    device = torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "CPU"
    lines = [
        f"preset   {config.preset_name}",
        f"data     {data.name}: {data.num_classes} breeds, {describe_sizes(plan.splits)} images, in {data.root}",
        f"device   {plan.device} ({device}), {amp}, batch {_describe_batch(plan)}",
        f"results  {plan.out}",
        *([f"world    {_describe_world(plan)}"] if plan.world.size > 1 else []),
        "runs",
    ]
    configurations: dict[str, list[PlannedRun]] = {}
    for run in plan.runs:
        configurations.setdefault(run.configuration, []).append(run)
    width = max(map(len, configurations))
    for name, (run, *others) in configurations.items():
        phases = " -> ".join(map(str, run.phases))
        lines.append(f"  {name:<{width}}  {run.spec.display} at {run.spec.image_size} px  {phases}")
        if config.seeds > 1:
            lines[-1] += f"  seed {', '.join(str(each.seed) for each in (run, *others))}"
    return "\n".join(lines)


def _describe_world(plan: Plan) -> str:
    return f"{plan.world.size} processes, learning rates as for the whole batch; BatchNorm sees {plan.bn_sees}"


def _describe_batch(plan: Plan) -> str:
    world = plan.world
    shared = f" ({plan.batch_size // world.size} in each of {world.size} processes)" if world.size > 1 else ""
    return f"{plan.batch_size}{shared}, {plan.eval_batch_size} in evaluation"


def describe_results(folder: RunsFolder) -> str:
    """Lay out the result as text for a terminal: the table, the differences that matter, and what was written."""
    shown = _describe_repeats(folder.runs) if has_repeats(folder.runs) else _describe_runs(folder.runs)
    pairs = folder.table(PAIRWISE_FILE)
    differences = "" if pairs is None else describe_pairs(pairs, folder.runs)
    listed = "\n".join(f"  {name}" for name in _listed_files(folder.folder))
    return "\n\n".join(filter(None, [shown, differences, f"written to {folder.folder}\n{listed}"]))


def _listed_files(folder: Path) -> list[str]:
    """Name the files of a folder, single pictures by their folder alone."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    pictures = Counter(path.parent for path in paths if path.parent.name == EXPLANATIONS_FOLDER)
    files = [str(path) for path in paths if path.parts[0] != WANDB_FOLDER and path.parent not in pictures]
    files += [f"{parent}/ ({number} pictures)" for parent, number in pictures.items()]
    if (folder / WANDB_FOLDER).is_dir():
        files.append(f"{WANDB_FOLDER}/ (the runs of Weights & Biases)")
    return sorted(files)


def _describe_runs(runs: Sequence[Run]) -> str:
    table = comparison_table(runs)
    table["95 % interval"] = ["{:.4f} to {:.4f}".format(*run.metrics["accuracy_ci95"]) for run in runs]
    columns = ["Model", "Training strategy", "Test accuracy", "95 % interval", "Macro F1", "ECE", "Train time (s)"]
    return _show(table[columns])


def _describe_repeats(runs: Sequence[Run]) -> str:
    table = repeats_table(runs)
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
