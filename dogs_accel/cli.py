"""`dogs-accel <command>`: the parts of the project one by one."""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dogs_accel import benchmark
from dogs_accel.ending import CheckFailedError, ending_in_a_line
from dogs_accel.evaluation.tta import NO_TTA, check_tta, describe_views
from dogs_accel.runtime.arguments import (
    AMP_CHOICES,
    DATA_HELP,
    Parser,
    add_device_flag,
    did_you_mean,
    natural,
    positive,
    share,
    user_path,
)
from dogs_accel.runtime.files import check_folder, working_in
from dogs_accel.runtime.start import begin_command
from dogs_accel.runtime.terminal import escaped
from dogs_accel.sweep import command as sweep
from pipelines.recipe import EVAL, RECIPES, Recipe

_SHOWN = 10
_BENCHMARK, _REPORT, _SWEEP = "benchmark", "report", "sweep"
_ALONE = ("metadata", "parity", "throughput", "cost")
"""Commands whose files belong together: while one writes them, no other one may write into its folder."""

# What a command needs is imported by it: torch and DALI take seconds, which --help should not.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; how it ends is said in one line, with the exit codes of `ending_in_a_line`."""
    begin_command()
    given = sys.argv[1:] if arguments is None else arguments
    if list(given[:1]) == [_BENCHMARK]:
        return benchmark.main(given[1:], prog=f"dogs-accel {_BENCHMARK}")
    if list(given[:1]) == [_SWEEP]:
        return sweep.main(given[1:])
    with ending_in_a_line("dogs-accel") as ending:
        options = _parser().parse_args(given)
        ending.prog = f"dogs-accel {options.command}"
        out = getattr(options, "out", None)
        if out is not None:
            ending.log_folder = Path(out)
            if options.command != _REPORT:
                check_folder(Path(out), "out")
        try:
            with ExitStack() as stack:
                for number, text in enumerate(options.run(options)):
                    # Not before the data are open, which the folder may lie among.
                    if number == 0 and out is not None and options.command in _ALONE:
                        stack.enter_context(working_in(Path(out)))
                    print(text, flush=True)
        except KeyboardInterrupt:
            ending.stopped = options.when_stopped
            raise
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="dogs-accel", description="The parts of the project one by one.")
    commands = parser.add_subparsers(dest="command", required=True)
    # These read their arguments themselves; here they are only listed.
    commands.add_parser(_BENCHMARK, help="train and compare models, the same as python -m dogs_accel.benchmark")
    commands.add_parser(_SWEEP, help=sweep.PURPOSE)
    _add_download(commands)
    _add_prepare(commands)
    _add_metadata(commands)
    _add_eda(commands)
    _add_parity(commands)
    _add_throughput(commands)
    _add_cost(commands)
    _add_architecture(commands)
    _add_predict(commands)
    _add_explain(commands)
    _add_export(commands)
    _add_report(commands)
    return parser


def _add_download(commands: Any) -> None:
    command = commands.add_parser("download", help="fetch a known dataset, verify it and unpack it")
    command.add_argument(
        "--data", required=True, type=user_path, metavar="DIR", help="folder for the archives and the images"
    )
    command.add_argument(
        "--dataset", default="stanford-dogs", metavar="NAME",
        help="stanford-dogs, oxford-iiit-pet, caltech-256, cifar-10 or inaturalist-12k; of cats-and-dogs it says how "
        "to get it (default: stanford-dogs)",
    )  # fmt: skip
    command.set_defaults(run=_download, when_stopped="stopped; the same command goes on from here")


def _download(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.datasets.sources import download_dataset

    yield from map(escaped, download_dataset(options.dataset, options.data))


def _add_prepare(commands: Any) -> None:
    command = commands.add_parser("prepare", help="decode every image once, into a store that loads without decoding")
    command.add_argument("--data", required=True, type=user_path, metavar="DIR", help=DATA_HELP)
    _add_store(command, command)
    command.add_argument(
        "--store-max-side", type=positive, metavar="PX",
        help="at most so many px on the longer side, which is not exact, of images that the recipe takes as they are",
    )  # fmt: skip
    command.add_argument("--num-threads", type=positive, metavar="N", help="threads that decode (default: one a core)")
    command.add_argument("--rebuild", action="store_true", help="remove the store that is there and build it anew")
    command.set_defaults(run=_prepare, when_stopped="stopped; the same command goes on from here")


def _add_store(command: Any, where: Any) -> None:
    where.add_argument(
        "--store", type=user_path, metavar="DIR", help="folder for the store (default: one in ~/.cache/dogs_accel)"
    )
    command.add_argument(
        "--recipe", default=EVAL.name, metavar="NAME",
        help=f"whose resize the store has: one of {', '.join(RECIPES)} (default: {EVAL.name})",
    )  # fmt: skip
    command.add_argument(
        "--image-size", type=positive, metavar="PX",
        help="side of the model's input in px; the recipe resizes in proportion to it (default: the recipe's)",
    )  # fmt: skip


def _stored_recipe(options: argparse.Namespace) -> Recipe:
    """Find the recipe of `--recipe` at `--image-size`; raises ValueError where there is none."""
    if options.recipe not in RECIPES:
        near = did_you_mean(options.recipe, RECIPES)
        raise ValueError(f"recipe: got {options.recipe!r}, expected one of {', '.join(RECIPES)}{near}")
    recipe = RECIPES[options.recipe]
    return recipe if options.image_size is None else recipe.at(options.image_size)


def _prepare(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.datasets import open_dataset
    from pipelines.store.build import build_store, default_store_folder, plan_store
    from pipelines.store.index import INDEX_FILE, made_for

    recipe = _stored_recipe(options)
    if options.rebuild:
        options.when_stopped = "stopped; the same command without --rebuild goes on from here"
    data = open_dataset(options.data, unpack=True, check_files=False)
    yield from data.facts.lines()
    kept: dict[str, Any] = {"max_side": options.store_max_side}
    folder = default_store_folder(data.paths, recipe, **kept) if options.store is None else Path(options.store)
    plan = plan_store(data.paths, recipe, folder, rebuild=options.rebuild, **kept)
    yield str(plan)
    start = time.perf_counter()
    store = build_store(data.paths, recipe, folder, num_threads=options.num_threads, rebuild=options.rebuild, **kept)
    if not plan.is_complete:
        yield f"built in {time.perf_counter() - start:.1f} s"
    problems = store.problems
    yield f"bad files: {len(problems):,} of {len(data):,}"
    yield from (f"  {escaped(bad)}: {escaped(problem)}" for bad, problem in list(problems.items())[:_SHOWN])
    if len(problems) > _SHOWN:
        yield f"  and {len(problems) - _SHOWN:,} more in {folder / INDEX_FILE}"
    is_compared = made_for(recipe) == made_for(EVAL.at(recipe.crop))
    compare = f"--loader cached --store {shlex.quote(str(folder))}, or " if is_compared else ""
    more = "" if store.is_exact else f", store_max_side={options.store_max_side}"
    yield f'next: {compare}make_loader(..., backend="cached", store_dir="{folder}"{more})'


def _add_metadata(commands: Any) -> None:
    command = commands.add_parser(
        "metadata",
        help="decode every image once: quality statistics, bad files, pictures that come twice, and prepare's store",
    )
    command.add_argument("--data", required=True, type=user_path, metavar="DIR", help=DATA_HELP)
    command.add_argument(
        "--out", default="metadata", type=user_path, metavar="DIR", help="folder for the tables (default: metadata)"
    )
    command.add_argument(
        "--val-ratio", type=share, default=0.15, metavar="R",
        help="share of the training images that is validation, where the data have none (default: 0.15)",
    )  # fmt: skip
    command.add_argument(
        "--test-ratio", type=share, default=0.2, metavar="R",
        help="share of the training images that is test, where the data have none (default: 0.2)",
    )  # fmt: skip
    command.add_argument(
        "--seed", type=natural, default=42, metavar="N", help="seed of what is carved out (default: 42)"
    )
    command.add_argument("--num-threads", type=positive, metavar="N", help="threads that decode (default: one a core)")
    store = command.add_mutually_exclusive_group()
    _add_store(command, store)
    store.add_argument("--no-store", action="store_true", help="fill no store in the same pass, as is done else")
    command.set_defaults(run=_metadata, when_stopped="stopped; no table was written, and what a store has stays")


def _metadata(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.datasets import open_dataset
    from dogs_accel.datasets.splits import SPLITS, describe_carving
    from dogs_accel.eda.metadata import describe_metadata, write_metadata
    from pipelines.store.build import default_store_folder, filling_stores, plan_store
    from pipelines.store.index import StoreError

    recipe = _stored_recipe(options)
    data = open_dataset(options.data, unpack=True, check_files=False)
    yield from data.facts.lines()
    ratios = {"seed": options.seed, "val_ratio": options.val_ratio, "test_ratio": options.test_ratio}
    yield f"splits   {describe_carving(data.official_split, **ratios)}"
    splits = {name: data.split(name, **ratios) for name in SPLITS}
    make = functools.partial(write_metadata, data, splits, Path(options.out), num_threads=options.num_threads)
    report = None
    if not options.no_store:
        try:
            folder = default_store_folder(data.paths, recipe) if options.store is None else Path(options.store)
            plan = plan_store(data.paths, recipe, folder)
            if plan.fits:
                yield str(plan)
            with filling_stores(data.paths, {folder: recipe}, num_threads=options.num_threads) as hand_on:
                report = make(hand_on=hand_on)
        except StoreError as error:
            yield f"the store is left out: {error}"
    report = report or make()
    yield describe_metadata(report)
    yield from _written(report.written)
    if gone := report.classes_without_image:
        raise CheckFailedError(f"no image of {data.facts.count(len(gone))} can be decoded, the first {gone[0]}")


def _add_eda(commands: Any) -> None:
    command = commands.add_parser("eda", help="draw what `dogs-accel metadata` measured")
    command.add_argument(
        "--metadata", default="metadata", type=user_path, metavar="DIR",
        help="folder of its tables, which a benchmark's results hold too (default: metadata)",
    )  # fmt: skip
    command.add_argument(
        "--out", type=user_path, metavar="DIR", help="folder for the figures (default: eda in the folder of the tables)"
    )
    command.add_argument(
        "--seed", type=natural, default=42, metavar="N", help="seed of the random samples (default: 42)"
    )
    command.set_defaults(run=_eda, when_stopped="stopped; the figures that are written are whole")


def _eda(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.eda.files import AUGMENTED_FIGURE, read_metadata
    from dogs_accel.eda.run import describe_eda, write_eda
    from dogs_accel.results.layout import EDA_FOLDER
    from dogs_accel.steps import Steps

    folder = Path(options.metadata)
    out = folder / EDA_FOLDER if options.out is None else Path(options.out)
    data = read_metadata(folder)
    yield from data.facts.lines()
    yield describe_eda(data)
    steps = Steps(out, "figures")
    written = write_eda(data, out, seed=options.seed, step=steps.step)
    if out / AUGMENTED_FIGURE not in written and not steps.failed:
        yield f"{AUGMENTED_FIGURE} is left out: no training image is where the table says"
    yield from _written(written)
    if steps.failed:
        raise CheckFailedError(f"not made: {'; '.join(f'{name} ({why})' for name, why in steps.failed.items())}")


def _add_parity(commands: Any) -> None:
    command = commands.add_parser(
        "parity", help="hold the loaders to the reference: the same pixels, and the same answers of a real model"
    )
    command.add_argument("--data", required=True, type=user_path, metavar="DIR", help=DATA_HELP)
    command.add_argument("--loader", default="all", metavar="NAME", help="one of the loaders, or all (default: all)")
    command.add_argument(
        "--recipe",
        default="eval,resnet-train,vit-train",
        metavar="NAMES",
        help=f"all, or some of {', '.join(RECIPES)} (default: eval,resnet-train,vit-train)",
    )
    command.add_argument(
        "--num-images", type=positive, default=512, metavar="N",
        help="images, evenly spread over the dataset (default: 512)",
    )  # fmt: skip
    command.add_argument(
        "--model", default="resnet50", metavar="NAME",
        help="whose answers are compared, as --models of benchmark has it (default: resnet50)",
    )  # fmt: skip
    command.add_argument(
        "--weights",
        type=user_path,
        metavar="FILE",
        help="its weights (default: those of ImageNet, where they can be downloaded)",
    )
    add_device_flag(command)
    command.add_argument(
        "--out", default="parity", type=user_path, metavar="DIR", help="folder for the results (default: parity)"
    )
    command.add_argument("--seed", type=natural, default=42, metavar="N", help="seed of the augmentation (default: 42)")
    command.add_argument("--num-threads", type=positive, metavar="N", help="threads that load (default: one a core)")
    command.set_defaults(run=_parity, when_stopped="stopped; nothing was written")


def _parity(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.datasets import open_dataset
    from dogs_accel.datasets.photos import spread
    from dogs_accel.parity.run import ParityRun, named_loaders, named_recipes, write_parity
    from dogs_accel.runtime.devices import choose_device

    data = open_dataset(options.data, unpack=True, check_files=False)
    yield from data.facts.lines()
    run = ParityRun(
        paths=spread(data.paths, options.num_images),
        loaders=named_loaders(options.loader),
        recipes=named_recipes(options.recipe),
        model=options.model,
        weights=options.weights,
        device=choose_device(options.device),
        seed=options.seed,
        num_threads=options.num_threads,
    )
    yield f"{len(run.paths):,} of {len(data):,} images in {escaped(data.root)}, seed {run.seed}, on {run.device}"
    yield from run.lines()
    yield from _written(write_parity(Path(options.out), run))
    if run.problems:
        raise CheckFailedError("; ".join(run.problems))


def _add_throughput(commands: Any) -> None:
    command = commands.add_parser("throughput", help="measure the loaders on your files and say who is the bottleneck")
    command.add_argument(
        "--data", required=True, type=user_path, metavar="DIR", help="folder with photos, at any depth"
    )
    command.add_argument(
        "--loader", default="all", metavar="NAMES", help="all, or some of them, as in torch,dali (default: all)"
    )
    command.add_argument(
        "--recipe",
        default="resnet-train",
        metavar="NAME",
        help=f"one of {', '.join(RECIPES)} (default: resnet-train)",
    )
    command.add_argument(
        "--model", metavar="NAME",
        help="a model as --models of benchmark has it, or none; its weights are random (default: resnet50 on a GPU; on "
        "a CPU resnet18 at 64 px, so that it ends soon)",
    )  # fmt: skip
    command.add_argument("--batch-size", type=positive, default=32, metavar="N", help="images a batch (default: 32)")
    command.add_argument("--image-size", type=positive, metavar="PX", help="side of the output (default: the recipe's)")
    command.add_argument(
        "--num-threads", type=positive, metavar="N", help="threads or worker processes (default: one a core)"
    )
    command.add_argument("--device", help="cpu, cuda or cuda:<index> (default: a GPU where there is one)")
    command.add_argument(
        "--num-images",
        type=positive,
        metavar="N",
        help="how many of the files to load (default: 512, or 8 batches for each thread where that is more)",
    )
    command.add_argument(
        "--rounds", type=positive, default=5, metavar="N", help="how often each loader takes its turn (default: 5)"
    )
    command.add_argument(
        "--store",
        type=user_path,
        metavar="DIR",
        help="folder of the decode-once stores (default: a temporary one, deleted at the end)",
    )
    command.add_argument(
        "--out",
        default="throughput",
        type=user_path,
        metavar="DIR",
        help="folder for the results (default: throughput)",
    )
    command.set_defaults(run=_throughput, when_stopped="stopped; nothing was written")


def _throughput(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.throughput.run import ThroughputSettings, measure_all

    settings = ThroughputSettings(
        data=options.data,
        loader=options.loader,
        recipe=options.recipe,
        model=options.model,
        batch_size=options.batch_size,
        image_size=options.image_size,
        num_threads=options.num_threads,
        device=options.device,
        num_images=options.num_images,
        rounds=options.rounds,
        store=options.store,
    )
    written = yield from measure_all(settings, Path(options.out))
    yield from _written(written)


def _add_cost(commands: Any) -> None:
    command = commands.add_parser(
        "cost", help="what models cost: parameters, operations, memory, and the time of an image and of a batch"
    )
    command.add_argument(
        "--models", required=True, metavar="NAMES",
        help="models by name, comma-separated: resnet50, vit_b_16, resnet18, timm/<name>; their weights are random",
    )  # fmt: skip
    command.add_argument(
        "--num-classes", type=positive, metavar="N",
        help="classes of the head (default: those of each model's published weights, 1,000 of ImageNet as a rule)",
    )  # fmt: skip
    command.add_argument("--image-size", type=positive, metavar="PX", help="side of the input (default: each model's)")
    command.add_argument("--batch-size", type=positive, default=32, metavar="N", help="images a batch (default: 32)")
    command.add_argument(
        "--rounds", type=positive, metavar="N",
        help="how often each model takes its turn (default: as many as fit into about two seconds a model for one "
        "image, and again for a batch, from 7 to 100)",
    )  # fmt: skip
    add_device_flag(command)
    command.add_argument(
        "--amp", choices=AMP_CHOICES, default="auto",
        help="mixed precision; auto is bf16 or fp16 on a GPU and off on a CPU, as in the benchmark (default: auto)",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print JSON for programs in place of tables")
    command.add_argument("--out", type=user_path, metavar="DIR", help="also write cost.csv and cost.json to DIR")
    command.set_defaults(run=_cost, when_stopped="stopped; nothing was written")


def _cost(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.cost.run import (
        CostRun,
        costs_as_json,
        describe_costs,
        describe_run,
        measure_models,
        named_models,
        write_costs,
    )
    from dogs_accel.runtime.devices import choose_device
    from dogs_accel.runtime.memory import keep_freed_memory
    from dogs_accel.runtime.precision import amp_dtype, set_numerics

    device = choose_device(options.device)
    run = CostRun(
        specs=named_models(options.models, options.image_size),
        num_classes=options.num_classes,
        batch_size=options.batch_size,
        device=device,
        amp=amp_dtype(options.amp, device),
        rounds=options.rounds,
    )
    # As a benchmark does.
    set_numerics()
    if device.type == "cpu":
        keep_freed_memory()
    described = [escaped(line) for line in describe_run(run)]
    if not options.json:
        yield from described
    costs = measure_models(run)
    if options.json:
        yield json.dumps(costs_as_json(costs), indent=2)
    else:
        yield from describe_costs(costs)
    if options.out is not None:
        written = write_costs(Path(options.out), costs)
        if not options.json:
            yield from _written(written)


def _add_architecture(commands: Any) -> None:
    command = commands.add_parser(
        "architecture", help="what a model is made of: its stages, what each puts out, sees of the image, and costs"
    )
    command.add_argument("model", metavar="MODEL", help="a model by its name: resnet50, vit_b_16, cnn5, timm/<name>")
    command.add_argument(
        "--num-classes", type=positive, metavar="N",
        help="classes of the head (default: those of its published weights, 1,000 of ImageNet as a rule)",
    )  # fmt: skip
    command.add_argument("--image-size", type=positive, metavar="PX", help="side of the input (default: the model's)")
    command.add_argument(
        "--rounds", type=positive, metavar="N",
        help="how often the stages are timed (default: as many as fit into about a second, from 5 to 50)",
    )  # fmt: skip
    command.add_argument("--no-time", action="store_true", help="leave the times out, and so the model's weights")
    add_device_flag(command)
    command.add_argument("--json", action="store_true", help="print JSON for programs in place of a table")
    command.add_argument(
        "--out", type=user_path, metavar="DIR",
        help="also write architecture.png, architecture.csv and architecture.json to DIR",
    )  # fmt: skip
    command.set_defaults(run=_architecture, when_stopped="stopped; nothing was written")


def _architecture(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.cost.run import own_num_classes, stages_in_time
    from dogs_accel.models.architecture.table import as_json, count_stages, describe_architecture
    from dogs_accel.models.architecture.write import write_architecture
    from dogs_accel.models.input_size import describe_input_size
    from dogs_accel.models.specs import model_spec
    from dogs_accel.runtime.devices import choose_device
    from dogs_accel.runtime.precision import set_numerics

    device = choose_device(options.device)
    spec = model_spec(options.model, options.image_size)
    note = describe_input_size(spec)
    if note is not None and not options.json:
        yield escaped(note)
    architecture = count_stages(spec, options.num_classes or own_num_classes(spec))
    if not options.no_time:
        set_numerics()
        architecture = stages_in_time(spec, architecture, device, options.rounds)
    if options.json:
        yield json.dumps(as_json(architecture), indent=2)
    else:
        yield f"{escaped(spec.display)} at {spec.image_size} px, {architecture.num_classes:,} classes\n"
        yield describe_architecture(architecture)
    if options.out is not None:
        written = write_architecture(Path(options.out), architecture)
        if not options.json:
            yield from _written(written)


def _add_predict(commands: Any) -> None:
    command = commands.add_parser("predict", help="say which classes are on photos, by a run's model")
    command.add_argument(
        "images",
        nargs="+",
        type=user_path,
        metavar="IMAGE",
        help="a file of any format that PIL opens, or a folder of photos",
    )
    _add_run(command)
    command.add_argument(
        "--tta", default=NO_TTA, metavar="VIEWS",
        help="average over views of each photo: flip, five-crop, or N, the photo and N - 1 draws of the training "
        f"recipe (default: {NO_TTA})",
    )  # fmt: skip
    command.add_argument("--top", type=positive, default=5, metavar="N", help="classes to name (default: 5)")
    command.add_argument("--json", action="store_true", help="print JSON for programs in place of a table")
    command.add_argument(
        "--heatmap",
        type=user_path,
        metavar="DIR",
        help="also draw what each file's likeliest class rests on, a picture a file in DIR",
    )
    command.add_argument(
        "--batch-size", type=positive, metavar="N",
        help="photos that the model gets at once (default: as many as in the run's evaluation)",
    )  # fmt: skip
    add_device_flag(command)
    command.set_defaults(run=_predict, when_stopped="stopped")


def _add_run(command: Any) -> None:
    command.add_argument(
        "--run", dest="results", required=True, type=user_path, metavar="DIR", help="folder of a benchmark's results"
    )
    command.add_argument(
        "--model", metavar="RUN",
        help="which of its runs, such as resnet50_full (default: the one of highest validation accuracy)",
    )  # fmt: skip


def _predict(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.inference.predict import describe_prediction, named_photos, predict_images
    from dogs_accel.inference.trained import describe_trained, load_trained
    from dogs_accel.results.folder import choose_run, naming_changed_files, read_runs_folder
    from dogs_accel.runtime.devices import choose_device
    from dogs_accel.runtime.precision import set_numerics
    from dogs_accel.runtime.terminal import count_text

    check_tta(options.tta)
    if options.heatmap:
        check_folder(Path(options.heatmap), "heatmap")
    folder = Path(options.results)
    device = choose_device(options.device)
    with naming_changed_files([folder]):
        run = choose_run(read_runs_folder(folder), options.model)
        trained = load_trained(run, device, options.batch_size)
        set_numerics(tf32=run.record.identity["tf32"])
    draw = None
    if options.heatmap:
        from dogs_accel.inference.heatmaps import HeatmapFolder

        draw = HeatmapFolder(Path(options.heatmap), trained.model, trained.recipe).draw
    answers = predict_images(trained, named_photos(options.images), top=options.top, draw=draw, tta=options.tta)
    notice = run.record.data_notice
    if options.json:
        described = {"run": run.name, "model": run.title, "temperature": trained.temperature, "data_notice": notice}
        if trained.temperature is None:
            described["not_calibrated"] = run.why_no_temperature
        if options.tta != NO_TTA:
            described["tta"] = options.tta
        images = [answer.as_json() for answer in answers]
        # In ASCII, whatever the encoding of the reader is; DEL is the one control character that JSON does not escape.
        yield json.dumps({**described, "images": images}, indent=2).replace("\x7f", "\\u007f")
    else:
        if notice:
            yield escaped(notice)
        views = "" if options.tta == NO_TTA else f"; {describe_views(options.tta, len(trained.views(options.tta)))}"
        yield escaped(describe_trained(trained) + views)
        yield from map(describe_prediction, answers)
    failures = []
    if num_bad := sum(answer.problem is not None for answer in answers):
        failures.append(f"{num_bad} of {len(answers)} images cannot be read")
    if undrawn := [answer.no_heatmap for answer in answers if answer.no_heatmap is not None]:
        failures.append(f"{count_text(len(undrawn), 'heat map')} cannot be drawn: {undrawn[0]}")
    if failures:
        raise CheckFailedError("; ".join(failures))


def _add_explain(commands: Any) -> None:
    command = commands.add_parser(
        "explain", help="look inside a run's model on photos: feature maps, filters, channels, guided gradients"
    )
    command.add_argument(
        "images", nargs="+", type=user_path, metavar="IMAGE",
        help="a file of any format that PIL opens, or a folder of photos",
    )  # fmt: skip
    _add_run(command)
    command.add_argument("--out", required=True, type=user_path, metavar="DIR", help="folder for the pictures")
    command.add_argument(
        "--classes", nargs=2, metavar="CLASS",
        help="two classes for whose difference channels are chosen (default: the two that the run confuses most)",
    )  # fmt: skip
    command.add_argument(
        "--num-images", type=positive, default=128, metavar="N",
        help="test images on which channels are chosen, at most (default: 128)",
    )  # fmt: skip
    command.add_argument("--all-stages", action="store_true", help="every stage, and not six of them")
    command.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of those images (default: 0)")
    add_device_flag(command)
    command.set_defaults(run=_explain, when_stopped="stopped; what was written stays")


def _explain(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.inference.inside import InsideSettings, LookedInside, check_photos, look_inside
    from dogs_accel.inference.predict import named_photos
    from dogs_accel.inference.trained import describe_trained, load_trained
    from dogs_accel.results.folder import choose_run, naming_changed_files, read_runs_folder
    from dogs_accel.runtime.devices import choose_device
    from dogs_accel.runtime.precision import set_numerics

    paths = named_photos(options.images)
    check_photos(paths)
    results, device = Path(options.results), choose_device(options.device)
    settings = InsideSettings(
        classes=options.classes, num_images=options.num_images, all_stages=options.all_stages, seed=options.seed
    )
    with naming_changed_files([results]):
        run = choose_run(read_runs_folder(results), options.model)
        trained = load_trained(run, device)
        set_numerics(tf32=run.record.identity["tf32"])
    if run.record.data_notice:
        yield escaped(run.record.data_notice)
    yield escaped(describe_trained(trained))
    for said in look_inside(trained, results, paths, Path(options.out), settings):
        if isinstance(said, LookedInside):
            yield from _written(said.written)
            if said.failures:
                raise CheckFailedError("; ".join(said.failures))
        else:
            yield escaped(said)


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export", help="write a run's model as a torch.export archive and as ONNX, with its preprocessing, and check it"
    )
    _add_run(command)
    command.add_argument("--out", required=True, type=user_path, metavar="DIR", help="folder for the files")
    command.set_defaults(run=_export, when_stopped="stopped; what was in the folder is as it was")


def _export(options: argparse.Namespace) -> Iterator[str]:
    import torch

    from dogs_accel.eda.files import read_metadata
    from dogs_accel.inference.export import ExportMismatchError, describe_checks, export_run, real_images
    from dogs_accel.inference.trained import load_trained
    from dogs_accel.results.folder import choose_run, naming_changed_files, read_runs_folder

    folder = Path(options.results)
    with naming_changed_files([folder]):
        run = choose_run(read_runs_folder(folder), options.model)
        trained = load_trained(run, torch.device("cpu"))
        splits = read_metadata(folder).splits
    yield escaped(f"{run.name}: {run.title}, validation accuracy {run.val_accuracy:.4f}")
    test = splits.loc[splits["split"] == "test", "image_path"].tolist()
    try:
        exported = export_run(trained, Path(options.out), real_images(trained, test))
    except ExportMismatchError as error:
        raise CheckFailedError(str(error)) from error
    yield from describe_checks(exported)
    yield from _written(exported.written)


def _add_report(commands: Any) -> None:
    command = commands.add_parser(_REPORT, help="make the report of a run again, or one that compares several runs")
    command.add_argument(
        "runs", nargs="+", type=user_path, metavar="RUN", help="folder that the benchmark wrote, such as runs/demo-..."
    )
    command.add_argument(
        "--out",
        type=user_path,
        metavar="FILE",
        help="where the report goes (default: report.html in the folder; needed for several)",
    )
    command.set_defaults(run=_report, when_stopped="stopped; nothing was written")


def _report(options: argparse.Namespace) -> Iterator[str]:
    from dogs_accel.report.page import explorer_beside, write_comparison_report, write_report
    from dogs_accel.results.folder import naming_changed_files, read_runs_folder
    from dogs_accel.results.layout import EXPLORER_FILE, REPORT_FILE
    from dogs_accel.results.tables import remake_tables
    from dogs_accel.steps import Steps

    if len(options.runs) > 1 and options.out is None:
        raise ValueError("--out: got nothing, expected a file for the report of several runs")
    with naming_changed_files(map(Path, options.runs)):
        folders = [remake_tables(read_runs_folder(Path(run))) for run in options.runs]
        if options.out is None:
            written = write_report(folders[0], Steps(folders[0].folder, _REPORT).step)
            explorer = written.with_name(EXPLORER_FILE)
        else:
            out = Path(options.out)
            page = out / REPORT_FILE if out.is_dir() else out
            written = write_comparison_report(folders, page, Steps(page.parent, _REPORT).step)
            explorer = explorer_beside(written)
    yield escaped(written)
    if explorer.exists():  # there is none where it cannot be made
        yield escaped(explorer)


def _written(paths: Sequence[Path]) -> Iterator[str]:
    yield "written:"
    yield from (f"  {escaped(each)}" for each in paths)


if __name__ == "__main__":
    sys.exit(main())
