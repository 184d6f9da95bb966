"""A finished run's model as files that others can load: a torch.export archive and ONNX, checked, with its recipe."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dogs_accel.datasets.photos import spread
from dogs_accel.inference.preprocessing import describe_preprocessing, preprocessing_steps
from dogs_accel.inference.trained import TrainedModel
from dogs_accel.results.run import Run
from dogs_accel.runtime.environment import package_version
from dogs_accel.runtime.files import only_process_in, patient_file, replacing, write_json
from pipelines import make_loader

ARCHIVE_FILE, ONNX_FILE, PREPROCESSING_FILE = "model.pt2", "model.onnx", "preprocessing.json"
TOLERANCE = 1e-4
"""Largest difference of two logits, as a share of the largest logit of the batch or of 1 where that is more: float32
sums in another order."""
CHECKED_BATCHES = (1, 3)
NUM_REAL = 6
"""Test images that a check takes, in batches of each size."""
_INPUT, _OUTPUT = "images", "logits"
_PACKAGES = ("dogs-accel", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "pillow")

LogitsOf = Callable[[Tensor], Tensor]


class ExportMismatchError(Exception):
    """An exported model does not give the logits of the one that it was made of; its file was not kept."""


@dataclass(frozen=True, kw_only=True)
class ExportCheck:
    """How far an exported model's logits were from the model's."""

    file: str
    runtime: str
    """What ran the file."""
    num_random: int
    num_real: int
    largest_difference: float
    """As a share, see TOLERANCE."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What `export_run` wrote."""

    written: list[Path]
    checks: list[ExportCheck]
    notes: list[str]
    """What was left out or not checked, and why; a line each."""


def missing_packages() -> list[str]:
    """Name what ONNX needs and is not installed."""
    return [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]


def real_images(trained: TrainedModel, paths: Sequence[str], num: int = NUM_REAL) -> Tensor:
    """Load up to `num` of the files that are there as the run's evaluation did: (N, 3, H, W) float32, N may be 0."""
    there = [path for path in paths if Path(path).is_file()]
    found = spread(there, num) if there else []
    size = trained.recipe.crop
    if not found:
        return torch.empty(0, 3, size, size, dtype=torch.float32)
    labels = np.zeros(len(found), dtype=np.int64)
    with make_loader(
        found, labels, trained.recipe, backend="torch", batch_size=len(found), device="cpu", num_threads=1
    ) as loader:
        [batch] = loader
    return batch.images.contiguous()


def check_same(file: str, runtime: str, model: LogitsOf, exported: LogitsOf, real: Tensor, size_px: int) -> ExportCheck:
    """Compare the logits of a model and its exported form on random inputs and on real images, in batches of 1 and 3.

    real: (N, 3, size_px, size_px) float32, N may be 0. Raises ExportMismatchError where a logit differs by more than
    TOLERANCE.
    """
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(num, 3, size_px, size_px, generator=generator, dtype=torch.float32) for num in CHECKED_BATCHES
    ]
    num_random = sum(map(len, batches))
    batches += [part for num in CHECKED_BATCHES for part in real.split(num)] if len(real) else []
    largest = 0.0
    for images in batches:
        with torch.inference_mode():
            expected, got = model(images), exported(images)
        if got.shape != expected.shape:
            raise ExportMismatchError(
                f"{file}: {runtime} gives logits of shape {tuple(got.shape)}, the model {tuple(expected.shape)}"
            )
        difference = float((got - expected).abs().max() / expected.abs().max().clamp(min=1))
        if not difference <= TOLERANCE:  # also where it is NaN
            raise ExportMismatchError(
                f"{file}: {runtime} gives logits that differ from the model's by {difference:.2e} of the largest, "
                f"expected at most {TOLERANCE:.0e}; the file was not kept"
            )
        largest = max(largest, difference)
    return ExportCheck(
        file=file, runtime=runtime, num_random=num_random, num_real=len(real), largest_difference=largest
    )


def export_run(trained: TrainedModel, out: Path, real: Tensor) -> Exported:
    """Write model.pt2, model.onnx and preprocessing.json to `out`; a file whose logits differ is not left there.

    They take their places together, at the end: where something else fails, an earlier export stays as it is.

    trained: on the CPU; real: images to check with, see `check_same`. Without the packages that ONNX needs its file is
    left out, and without onnxruntime it is not checked, and the notes say so. Raises ValueError for a model that
    cannot be exported, ExportMismatchError where a check fails, BusyError where another process exports to `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with only_process_in(out):  # else one's model could come to lie beside another's description
        return _export(trained, out, real)


def _export(trained: TrainedModel, out: Path, real: Tensor) -> Exported:
    size = trained.recipe.crop
    model = trained.model.to(memory_format=torch.contiguous_format)
    mismatch: ExportMismatchError | None = None
    written, checks = [out / ARCHIVE_FILE], []
    notes = [] if len(real) else ["checked on random inputs only: no test image is where the metadata say"]
    with _quiet():
        program = _exported_program(model, size, trained.run)
        try:
            with replacing(out / ARCHIVE_FILE) as archive:
                checks.append(_write_archive(archive, program, model, real, size))
                try:
                    _write_rest(out, program, trained, real, written, checks, notes)
                except ExportMismatchError as error:  # of the ONNX file alone
                    mismatch = error
            if mismatch is not None:
                raise mismatch
        except ExportMismatchError:
            kept = [ARCHIVE_FILE] if mismatch is not None else []
            _remove_earlier(out, kept)
            raise
    _remove_earlier(out, [path.name for path in written])
    return Exported(written=written, checks=checks, notes=notes)


def _remove_earlier(out: Path, kept: Sequence[str]) -> None:
    """Remove the files of an earlier call, which would be taken for this one's."""
    for name in (ARCHIVE_FILE, ONNX_FILE, PREPROCESSING_FILE):
        if name not in kept:
            (out / name).unlink(missing_ok=True)


def _write_rest(
    out: Path,
    program: torch.export.ExportedProgram,
    trained: TrainedModel,
    real: Tensor,
    written: list[Path],
    checks: list[ExportCheck],
    notes: list[str],
) -> None:
    """Write the ONNX file, where it can be, and the description; adds to what was written, checked and noted."""
    with ExitStack() as stack:
        if missing := missing_packages():
            notes.append(f"{ONNX_FILE} is left out: {' and '.join(missing)} not installed (pip install "
                         "'dogs-accel[export]')")  # fmt: skip
        else:
            temporary = stack.enter_context(replacing(out / ONNX_FILE))
            check = _write_onnx(temporary, program, trained.model, real, trained.recipe.crop, trained.run)
            written.append(out / ONNX_FILE)
            if check is None:
                notes.append(f"{ONNX_FILE} was not checked: onnxruntime is not installed")
            else:
                checks.append(check)
        description = describe_export(trained, [path.name for path in written], checks)
        written.append(write_json(out / PREPROCESSING_FILE, description))


def _exported_program(model: nn.Module, size_px: int, run: Run) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    try:
        # Two images: a batch of one would be taken for a constant.
        return torch.export.export(
            model, (torch.zeros(2, 3, size_px, size_px, dtype=torch.float32),), dynamic_shapes=({0: batch},)
        )
    except RuntimeError as error:  # what torch.export raises of a model that it cannot follow
        raise ValueError(f"export: torch.export cannot follow {run.title} ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _write_archive(
    path: Path, program: torch.export.ExportedProgram, model: nn.Module, real: Tensor, size_px: int
) -> ExportCheck:
    with patient_file(path) as file:
        torch.export.save(program, file)
    loaded = torch.export.load(path).module()
    return check_same(ARCHIVE_FILE, "torch.export", model, loaded, real, size_px)


def _write_onnx(
    path: Path,
    program: torch.export.ExportedProgram,
    model: nn.Module,
    real: Tensor,
    size_px: int,
    run: Run,
) -> ExportCheck | None:
    """Write the ONNX file; None where there is nothing to check it with."""
    try:
        onnx_program = torch.onnx.export(
            program, (), dynamo=True, input_names=[_INPUT], output_names=[_OUTPUT], verbose=False
        )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ValueError(f"export: ONNX cannot express {run.title} ({_first_line(error)})") from error
    assert onnx_program is not None
    onnx_program.save(path, external_data=False)
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    return check_same(ONNX_FILE, "onnxruntime", model, _onnx_forward(path), real, size_px)


def _onnx_forward(path: Path) -> LogitsOf:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def forward(images: Tensor) -> Tensor:
        [logits] = session.run([_OUTPUT], {_INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return forward


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporters say of their own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def describe_export(trained: TrainedModel, files: Sequence[str], checks: Sequence[ExportCheck]) -> dict[str, Any]:
    """Lay out preprocessing.json: all that somebody needs to feed the model and to read its logits."""
    recipe, run = trained.recipe, trained.run
    return {
        "run": run.name,
        "model": run.record.identity["model"],
        "title": run.title,
        "dataset": run.record.config.dataset,
        "data_notice": run.record.data_notice,
        "files": list(files),
        "input": {"name": _INPUT, "dtype": "float32", "shape": ["batch", 3, recipe.crop, recipe.crop]},
        "output": {"name": _OUTPUT, "dtype": "float32", "shape": ["batch", len(trained.class_names)]},
        "preprocessing": describe_preprocessing(recipe),
        "steps": preprocessing_steps(recipe),
        "temperature": trained.temperature,
        **_describe_probabilities(trained),
        "class_names": trained.class_names,
        "tolerance": TOLERANCE,
        "checks": [vars(check) for check in checks],
        "versions": {name: package_version(name) for name in _PACKAGES},
    }


def _describe_probabilities(trained: TrainedModel) -> dict[str, str]:
    if trained.temperature is not None:
        return {"probabilities": "softmax(logits / temperature)"}
    return {"probabilities": "softmax(logits)", "not_calibrated": str(trained.run.why_no_temperature)}


def describe_checks(exported: Exported) -> list[str]:
    """Say what was checked and what was not, a line each."""
    lines = [
        f"{check.file}: the model's logits on {check.num_random} random inputs and {check.num_real} test images, in "
        f"batches of {' and '.join(map(str, CHECKED_BATCHES))} ({check.runtime}; largest difference "
        f"{check.largest_difference:.1e} of the largest logit, {TOLERANCE:.0e} allowed)"
        for check in exported.checks
    ]
    return lines + exported.notes
