"""`python -m bench.write_docs`: writes the figures of bench/results into the README, docs/ and csrc/README.md.

A page has them between `<!-- figures: NAME -->` and `<!-- end -->`, where NAME is one of FIGURES; it also draws the
picture of the README. No figure is typed, and what has not changed is not written.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import hashlib
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.fault_table import fault_table
from bench.gpu_check import KEPT
from bench.gpu_table import gpu_figures
from dogs_accel.runtime.files import read_json, replacing, write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
DEMO = RESULTS / "demo.json"
PICTURE = ROOT / "docs" / "loaders.png"
_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
_SOURCE = "Drawn from"
"""The entry of the PNG that names the results by their digest."""
_RECIPES = {"eval": "evaluation", "resnet-train": "training, ResNet-50", "vit-train": "training, ViT-B/16"}
_CANDIDATES = {
    "published: PIL, torchvision, DataLoader": "published: PIL, torchvision, DataLoader",
    "torchvision v2, DataLoader": "torchvision v2, DataLoader",
    "OpenCV, DataLoader": "OpenCV, DataLoader",
    "DALI as documented": "DALI as its documentation has it, on the CPU",
    "torch": "`torch`, the reference",
    "dali": "`dali`",
    "cached": "`cached`",
    "auto": "`auto`, which is `cached` here",
    "decode only": "ceiling: decode with DALI and do nothing else",
    "write the batches to memory": "ceiling: write the batches to memory",
}
"""Candidates of the tables of loaders, as the results and as the tables call them."""
_DRAWN = [name for name in _CANDIDATES if name not in ("auto", "torch", "write the batches to memory")]


_OTHER_RECIPES = {
    "imagenet-eval": "`imagenet-eval`: shorter side 256, centre crop",
    "imagenet-train": "`imagenet-train`: crop of random area, flip",
    "standard-train": "`standard-train`: crop, flip, jitter with hue, rotation, erasing",
    "randaugment-erasing": "`randaugment-train` and erasing",
    "cifar-train": "`cifar-train`: 32 px, padding, crop, flip, batch 128",
}
_COMPARED = {
    "published: PIL, torchvision, DataLoader": "PIL, torchvision, img/s",
    "torchvision v2, DataLoader": "torchvision v2",
    "OpenCV, DataLoader": "OpenCV",
    "timm, DataLoader": "timm",
    "DALI as documented": "DALI as documented",
    "dali": "`dali`",
    "cached": "`cached`",
}
"""Candidates of a table by recipe; the first is what the others are compared with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what is not current, and name it."""
    parser = argparse.ArgumentParser(prog="python -m bench.write_docs", description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, metavar="RUN", help="take the figures of the demo from this finished run")
    chosen = parser.parse_args(arguments)
    if chosen.demo is not None:
        keep_demo(chosen.demo)
    written = [path for path in pages() if write_page(path)]
    if picture_source() != digest_of_results():
        written.append(draw_picture())
    print("\n".join(f"written: {path.relative_to(ROOT)}" for path in written) or "every figure is current")
    return 0


def pages() -> list[Path]:
    """Give the pages, which may have figures."""
    top = [ROOT / "README.md", ROOT / "SECURITY.md"]
    return [*top, *sorted((ROOT / "docs").glob("*.md")), ROOT / "csrc" / "README.md"]


def names_of_figures(text: str) -> list[str]:
    """Give the names of the figures on a page, in their order."""
    return [found[2] for found in _BLOCK.finditer(text)]


def with_figures(text: str) -> str:
    """Put the figures into a page. Raises ValueError for a name that there is none of."""

    def block(found: re.Match[str]) -> str:
        if found[2] not in FIGURES:
            raise ValueError(f"figures: got {found[2]!r}, expected one of {', '.join(FIGURES)}")
        return f"{found[1]}\n{FIGURES[found[2]]().strip()}\n\n{found[3]}"

    return _BLOCK.sub(block, text)


def write_page(path: Path) -> bool:
    """Write the figures of a page anew, if they are others; says whether it was written."""
    old = path.read_text(encoding="utf-8")
    new = with_figures(old)
    if new != old:
        with replacing(path) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return new != old


def keep_demo(folder: Path) -> Path:
    """Keep what the pages show of a run of `python -m dogs_accel.benchmark` without data."""
    names = ("accuracy", "accuracy_ci95", "macro_f1", "ece", "num_images")
    runs = []
    for path in sorted(folder.glob("*/*/*_run_metadata.json")):
        record, metrics = read_json(path), read_json(path.with_name("metrics.json"))
        about = {"run": record["run_name"], "title": record["display_name"], "notice": record["data_notice"]}
        runs.append(about | {name: metrics[name] for name in names})
    with (folder / "pairwise_comparison.csv").open(newline="", encoding="utf-8") as file:
        pairs = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    environment = {key: value for key, value in read_json(folder / "environment.json").items() if key != "command"}
    date = time.strftime("%Y-%m-%d", time.gmtime((folder / "environment.json").stat().st_mtime))
    return write_json(
        DEMO, {"title": "the demo", "date": date, "environment": environment, "runs": runs, "pairs": pairs}
    )


# --- the picture ------------------------------------------------------------------------------------------------


def digest_of_results() -> str:
    """Name the results that the picture shows."""
    shown = [[(row["candidate"], row["ratio"], row["ratio_low"], row["ratio_high"]) for row in loader_rows(recipe)]
             for recipe in _RECIPES]  # fmt: skip
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def picture_source() -> str | None:
    """Read which results the picture shows; None where there is no picture."""
    if not PICTURE.is_file():
        return None
    with Image.open(PICTURE) as picture:
        return str(picture.info.get(_SOURCE))


def draw_picture() -> Path:
    """Draw the loaders against each other, in a picture that says of which results it is."""
    from dogs_accel.plots import save_figure
    from dogs_accel.throughput.figures import loaders_figure
    from dogs_accel.throughput.measure import Row

    fields = {field.name for field in dataclasses.fields(Row)}
    tables = {
        title: [Row(**{name: value for name, value in row.items() if name in fields}) for row in loader_rows(recipe)]
        for recipe, title in _RECIPES.items()
    }
    save_figure(loaders_figure(tables, baseline="published"), PICTURE)
    about = PngInfo()
    about.add_text(_SOURCE, digest_of_results())
    with Image.open(PICTURE) as picture, replacing(PICTURE) as temporary:
        flat = picture.convert("RGB").resize((1290, round(1290 * picture.height / picture.width)))
        flat.quantize(64).save(temporary, "PNG", pnginfo=about, optimize=True)
    return PICTURE


def loader_rows(recipe: str) -> list[dict[str, Any]]:
    """Give the rows of a table of loaders that are drawn, in their order."""
    rows = rows_of(f"loaders_{recipe}")
    return [rows[name] for name in _DRAWN if name in rows]


# --- what the tables are made of --------------------------------------------------------------------------------


@functools.cache
def result(name: str) -> dict[str, Any]:
    """Read a file of bench/results."""
    content: dict[str, Any] = read_json(RESULTS / f"{name}.json")
    return content


def rows_of(name: str) -> dict[str, dict[str, Any]]:
    """Give the rows of a result by their candidates."""
    return {row["candidate"]: row for row in result(name)["rows"]}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def number(value: float) -> str:
    """Write a positive number with three digits, or as many as there are before the point: 2.68, 51.5, 1,666."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def against(row: Mapping[str, Any]) -> str:
    """Write a ratio with the lowest and the highest of its rounds."""
    return f"{number(row['ratio'])} ({number(row['ratio_low'])} to {number(row['ratio_high'])})"


def p_value(value: float) -> str:
    """Write a p value with three digits."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def rate(value: float) -> str:
    """Write a rate: in millions from a hundred thousand on."""
    return f"{number(value / 1e6)} million" if value >= 1e5 else f"{value:,.0f}"


def rates(name: str, about: str, unit: str, said: Mapping[str, str]) -> str:
    """Lay out some candidates of a result: what is said of them, the rate, the ratio to the first."""
    rows = rows_of(name)
    return table(
        [about, f"{unit}/s", "ratio"],
        [[words, rate(rows[key]["rate"]), "1" if rows[key]["ratio_low"] == rows[key]["ratio_high"] == 1 else
          against(rows[key])] for key, words in said.items()],
    )  # fmt: skip


# --- the figures ------------------------------------------------------------------------------------------------


def machine() -> str:
    """Say on what, with what and when the loaders were measured."""
    found = result("loaders_eval")
    environment = found["environment"]
    versions = {"torch": "torch", "torchvision": "torchvision", "nvidia-dali-cuda120": "DALI", "pillow": "Pillow"}
    packages = ", ".join(
        f"{name} {'.'.join(environment['packages'][key].split('.')[:2])}" for key, name in versions.items()
    )
    gpus = ", ".join(gpu["name"] for gpu in environment["gpus"]) or "no GPU"
    return f"{environment['cpu']}, {environment['cores']} cores, {gpus}; {packages}; {found['date']}."


def loaders() -> str:
    """Lay out loaders against the published one, a column a recipe."""
    first = next(iter(_CANDIDATES))
    rows = []
    for name in _CANDIDATES:
        found = [rows_of(f"loaders_{recipe}")[name] for recipe in _RECIPES]
        cells = [f"1 ({row['rate']:,.0f} img/s)" if name == first else against(row) for row in found]
        rows.append([_CANDIDATES[name], *cells])
    return table(["", *_RECIPES.values()], rows)


def loaders_of_recipes() -> str:
    """Lay out ours and the rivals by recipe, times as fast as the published loader."""
    rows = []
    for recipe, words in _OTHER_RECIPES.items():
        found = rows_of(f"loaders_{recipe}")
        published, *others = (found.get(name) for name in _COMPARED)
        assert published is not None
        rows.append([words, f"{published['rate']:,.0f}", *("-" if row is None else against(row) for row in others)])
    return table(["recipe", *_COMPARED.values()], rows)


def loaders_with_model() -> str:
    """Say what each loader costs a training step."""
    found = result("loaders_with_model")
    rows = [
        [_CANDIDATES[name], f"{row['loader_rate']:,.0f}", f"{row['compute_rate']:,.0f}",
         f"{row['end_to_end_rate']:,.0f}", f"{1 - row['end_to_end_rate'] / row['compute_rate']:.0%}"]
        for name, row in found["with_model"].items()
    ]  # fmt: skip
    head = [f"img/s with {found['model']}", "loader alone", "model alone", "together", "lost of the model's"]
    return table(head, [[cell.replace("%", " %") for cell in row] for row in rows])


def cifar_epoch() -> str:
    """Lay out an epoch of CIFAR-10's ResNet-18 with the document's loader and with `cached`."""
    found = result("cifar_epoch")
    rows = []
    for row in found["rows"]:
        name = "`cached`" if row["candidate"] == "cached" else row["candidate"]
        ratio = "1" if row["candidate"] == found["baseline"] else "-"
        if "ratio" in row and ratio == "-":
            ratio = f"{number(row['ratio'])} ({number(row['ratio_low'])} to {number(row['ratio_high'])})"
        rows.append(
            [f"{'loading' if row['kind'] == 'load' else 'training on'} {row['num_images']:,} images, {name}",
             number(median(row["seconds"])), number(median(row["cpu_seconds"])), ratio,
             f"{row['wait_share']:.1%}".replace("%", " %") if row.get("wait_share") is not None else "-"]
        )  # fmt: skip
    head = [
        f"ResNet-18 of 32 px, batch {found['batch_size']}",
        "seconds",
        "of CPU",
        "as fast as the document's",
        "waiting",
    ]
    return table(head, rows)


def statistics() -> str:
    """Lay out metadata, statistics of pixels, calibration and bootstrap."""
    photo = "PIL + NumPy + matplotlib"
    return "\n\n".join([
        rates("metadata", "the metadata of 512 photos (mean 37 kB, 192,000 px), from the files", "photos", {
            "published: PIL, NumPy, matplotlib": "published loop: PIL, NumPy, matplotlib",
            "dogs_accel": "`dogs-accel metadata`, which also checks, checksums and hashes them",
            "ceiling: decode_files alone": "ceiling: decoding them and nothing else",
        }),
        rates("image_stats", "statistics of a decoded photo of 468 x 401, one thread", "photos", {
            photo: "PIL, NumPy, matplotlib",
            "dogs_accel, 1 thread": "`dogs_accel.ops.image_stats`",
            "dogs_accel, 1 thread, AVX2": "the same with AVX2 and no AVX-512",
        }),
        rates("squash", "a photo of 468 x 401 squashed to 256 x 256, one thread", "photos", {
            "Pillow, 1 thread": "Pillow",
            "dogs_accel, 1 thread": "`dogs_accel.ops.squash`, with Pillow's bits",
        }),
        rates("augment_resnet-train", "from stored bytes to a batch, ResNet-50's recipe, one thread", "images", {
            "PIL and torchvision, 1 thread": "PIL and torchvision",
            "dogs_accel, 1 thread": "`dogs_accel.ops.augment`, with their bits",
        }),
        rates("ece", "ECE of 1,000,000 x 120 logits, 15 bins", "rows", {
            "torchmetrics": "torchmetrics, given the softmax",
            "dogs_accel": "`dogs_accel.calibration`, from the logits",
        }),
        rates("class_bins", "classwise error and Brier score of the same logits", "rows", {
            "torch": "torch",
            "dogs_accel": "`dogs_accel.ops.class_calibration_bins`, which gives both",
        }),
        rates("bootstrap", "bootstrap of 8,580 x 120 test logits", "resamples", {
            "scikit-learn in a loop, macro F1 alone": "macro F1 alone by scikit-learn in a loop",
            "dogs_accel, all scores": "`dogs_accel.evaluation.intervals`, all scores",
        }),
    ])  # fmt: skip


def demo() -> str:
    """Lay out the runs of the demo."""
    rows = [
        [*run["title"].split(", ", 1), f"{run['accuracy']:.3f}", "{:.3f} to {:.3f}".format(*run["accuracy_ci95"]),
         f"{run['macro_f1']:.3f}", f"{run['ece']:.3f}"]
        for run in result("demo")["runs"]
    ]  # fmt: skip
    return table(["model", "strategy", "test accuracy", "95 % interval", "macro F1", "ECE"], rows)


_VERDICTS = {"a is better": "the first is better", "b is better": "the second is better"}


def demo_pairs() -> str:
    """Lay out the pairs of runs of the demo."""
    rows = [
        [f"`{pair['run_a']}`", f"`{pair['run_b']}`",
         "{:+.3f} ({:+.3f} to {:+.3f})".format(*(float(pair[name]) for name in ("difference", "low", "high"))),
         p_value(float(pair["mcnemar_p_holm"])), _VERDICTS.get(pair["verdict"], pair["verdict"])]
        for pair in result("demo")["pairs"]
    ]  # fmt: skip
    return table(["run", "another", "the second less the first", "McNemar p, corrected", "verdict"], rows)


def training_switches() -> str:
    """Lay out the switches of a training step, for both models of the demo."""
    models = {"resnet18": "ResNet-18 at 64 px", "vit_tiny_patch16_224": "ViT-Ti at 64 px"}
    steps = {
        "channels-last": "channels-last", "fused AdamW": "fused AdamW", "AMP bf16": "`--amp bf16`",
        "compile": "`--compile`", "all defaults together": "all defaults together",
    }  # fmt: skip
    lines = [
        ("training_{}_16", "float32, nothing on", "float32, contiguous, unfused, eager"),
        *(("training_{}_16", name, words) for name, words in steps.items()),
        ("training_head_{}", "head only", "the head alone, against the full step"),
        ("training_head_{}", "head on cached features", "the head on cached features, against the full step"),
        ("evaluation_{}", "batch 64, the default", "evaluation at batch 64, against 16"),
    ]
    rows = []
    for file, candidate, words in lines:
        found = [rows_of(file.format(model))[candidate] for model in models]
        cells = [f"1 ({row['rate']:,.0f} img/s)" if words.startswith("float32") else against(row) for row in found]
        rows.append([words, *cells])
    return table(["batch 16, on 2 cores", *models.values()], rows)


def processes() -> str:
    """Lay out training in several processes on one machine."""
    found = result("scaling")
    names = {"resnet18": "ResNet-18", "timm/vit_tiny_patch16_224": "ViT-Ti"}
    rows = [
        [names[model], str(row["processes"]), "yes" if row["exchange"] else "no", f"{row['in_all']:,.0f}"]
        for model, each in found["models"].items()
        for row in each
    ]
    where = f"batch {found['batch_size']} each at {found['image_size']} px, on {found['environment']['cores']} cores"
    return table([where, "processes", "gradients are exchanged", "img/s in all"], rows)


def exchange() -> str:
    """Lay out what an exchange of gradients costs on paper."""
    links = list(result("scaling_paper_resnet50")["rows"][0]["exchange_s"])
    rows = []
    for model, name in (("resnet50", "ResNet-50"), ("vit_b_16", "ViT-B/16")):
        for row in result(f"scaling_paper_{model}")["rows"][:3]:
            times = [f"{1e3 * row['exchange_s'][link]:.2f}" for link in links]
            backward = f"{1e3 * row['backward_s']['32']:.2f}"
            rows.append([name, str(row["processes"]), f"{row['bytes_sent'] / 1e6:.0f}", backward, *times])
    return table(["", "processes", "MB sent by each", "ms of backward", *(f"ms over {link}" for link in links)], rows)


def microseconds(name: str, candidate: str) -> str:
    """Write the time of an image, from its rate."""
    return f"{1e6 / rows_of(name)[candidate]['rate']:,.0f}"


def op_class_bins() -> str:
    """Lay out the speed of class_calibration_bins."""
    return rates("class_bins", "1,000,000 x 120 float32, 15 bins", "rows", {
        "torch": "torch: softmax, bucketize, bincount",
        "NumPy": "NumPy: softmax, searchsorted class by class",
        "dogs_accel": "`class_calibration_bins`",
        "ceiling: read the logits once": "ceiling: reading the logits once (`logits.sum()`)",
    })  # fmt: skip


def op_ece() -> str:
    """Lay out the speed of the ECE made of calibration_bins."""
    return rates("ece", "ECE of 1,000,000 x 120 float32, 15 bins", "rows", {
        "torchmetrics": "torchmetrics, given the softmax",
        "NumPy": "NumPy",
        "dogs_accel": "`calibration_bins`, from the logits",
        "ceiling: read the logits once": "ceiling: reading the logits once (`logits.sum()`)",
    })  # fmt: skip


def op_image_stats() -> str:
    """Lay out the speed of image_stats."""
    said = {
        "PIL + NumPy + matplotlib": "PIL, NumPy and matplotlib",
        "dogs_accel, 1 thread": "`image_stats`, one thread",
        "dogs_accel, 1 thread, AVX2": "`image_stats`, one thread, AVX2",
        "dogs_accel, all threads (2)": "`image_stats`, two threads (one photo takes one)",
        "ceiling: add the bytes as int64, 1 thread": "ceiling: `tensor.sum()` of the bytes as int64, one thread",
    }
    rows = []
    for key, words in said.items():
        cells = []
        for name in ("image_stats", "image_stats_ragged"):
            row = rows_of(name)[key]
            cells.append(f"{1e3 / row['rate']:.3f}" + ("" if row["ratio_low"] == 1 else f"; {against(row)} x"))
        rows.append([words, *cells])
    heads = ["32 photos of 468 x 401, a call each", "64 photos of 342 x 330 on average, one call"]
    return table(["ms an image", *heads], rows)


def op_squash() -> str:
    """Lay out the speed of squash."""
    return rates("squash", "32 photos of 468 x 401 to 256 x 256", "photos", {
        "Pillow, 1 thread": "`PIL.Image.resize`",
        "torch interpolate on uint8, 1 thread": "torch's `interpolate` on uint8, antialiased, one thread (other bits)",
        "dogs_accel, 1 thread, AVX2": "`squash`, one thread, AVX2",
        "dogs_accel, 1 thread": "`squash`, one thread",
        "dogs_accel, all threads (2)": "`squash`, two threads",
    })  # fmt: skip


def op_augment() -> str:
    """Lay out the speed of augment."""
    candidates = {
        "PIL and torchvision, 1 thread": "PIL and torchvision",
        "dogs_accel, 1 thread, AVX2": "one thread, AVX2",
        "dogs_accel, 1 thread": "one thread",
        "dogs_accel, all threads (2)": "two threads",
        "ceiling: write the batch, 1 thread": "ceiling: writing the batch",
    }
    rows = []
    for recipe, words in _RECIPES.items():
        name = f"augment_{recipe}"
        cells = [microseconds(name, "PIL and torchvision, 1 thread")]
        cells += [f"{microseconds(name, key)}; {against(rows_of(name)[key])} x" for key in list(candidates)[1:]]
        rows.append([words, *cells])
    return table(["us an image", *candidates.values()], rows)


def gpu() -> str:
    """Say what a GPU reached, or that none was measured."""
    return gpu_figures(KEPT)


def gpu_in_short() -> str:
    """Say in the README whether there are figures of a GPU."""
    if KEPT.is_file():
        return "What was measured on a GPU is in [measurements.md](docs/measurements.md#on-a-gpu)."
    return "No figure of a GPU has been measured yet."


FIGURES: dict[str, Callable[[], str]] = {
    "machine": machine,
    "loaders": loaders,
    "loaders-of-recipes": loaders_of_recipes,
    "loaders-with-model": loaders_with_model,
    "cifar-epoch": cifar_epoch,
    "statistics": statistics,
    "demo": demo,
    "demo-pairs": demo_pairs,
    "training-switches": training_switches,
    "processes": processes,
    "exchange": exchange,
    "op-ece": op_ece,
    "op-class-bins": op_class_bins,
    "op-image-stats": op_image_stats,
    "op-squash": op_squash,
    "op-augment": op_augment,
    "gpu": gpu,
    "gpu-in-short": gpu_in_short,
    "faults": fault_table,
}
"""By the name that pages call them."""


if __name__ == "__main__":
    sys.exit(main())
