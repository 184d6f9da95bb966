"""Real files for every test: a small generated dataset, and the shared photos where they are."""

from dogs_accel.runtime.threads import bound_spinning

bound_spinning()  # before the first import of torch

import gc

gc.disable()  # until all is collected: what is imported stays, and looking through it takes a quarter of the time

import multiprocessing.util
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dogs_accel import ops
from dogs_accel.benchmark import main
from dogs_accel.datasets import open_dataset
from dogs_accel.datasets.synthetic import write_synthetic

# Where the tests are started in the background Ctrl-C is ignored, also by every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only `make soak` and `make faults` run, and skip what needs a GPU where there is none."""
    if "soak" not in config.option.markexpr:
        soaks = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
        if soaks:
            config.hook.pytest_deselected(items=soaks)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    """Leave what is imported out of the collections of garbage that the library asks for: torch alone takes half a
    second of each."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Look for garbage from here on, also in the process that gives the tests to others and collects none."""
    gc.enable()


def pytest_sessionfinish() -> None:
    """Let it be freed with the rest; some libraries complain else."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stores and generated pictures for which no folder is given do not go to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _temporary_files_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What libraries leave among the temporary files goes with those of the session: torchrun and the compiler of torch
    leave a folder each, processes that are killed their own."""
    multiprocessing.util.get_temp_dir()  # this process removes its own at its end, so it must be elsewhere
    folder = str(tmp_path_factory.mktemp("t"))  # short, since sockets lie in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def dogs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 invented breeds, 12 training and 6 test pictures each, about 128 x 96 px; only to be read."""
    root = tmp_path_factory.mktemp("dogs") / "set"
    return write_synthetic(root, num_classes=4, train_per_class=12, test_per_class=6, size_px=(64, 128), num_workers=1)


@pytest.fixture
def closed_root(dogs_root: Path, tmp_path: Path) -> Path:
    """A copy of the small dataset whose test photos are no photos, so that decoding one of them ends what does."""
    root = Path(shutil.copytree(dogs_root, tmp_path / "data"))
    data = open_dataset(root)
    for i in data.split("test"):
        Path(data.paths[i]).write_text("not a photo", encoding="utf-8")
    return root


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Figures are saved as blank pictures."""
    from tests.support.blank_figures import blank_figures  # not every test needs what a figure does

    with blank_figures():
        yield


@pytest.fixture(scope="session")
def tiny_results(dogs_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one run of one epoch on the small dataset, resnet18_full at 32 px, tested by two views too, undrawn;
    only to be read."""
    from tests.support.blank_figures import blank_figures

    out = tmp_path_factory.mktemp("results") / "tiny"
    with blank_figures():
        main([
            "--data", str(dogs_root), "--preset", "demo", "--models", "resnet18", "--strategies", "full", "--epochs",
            "1", "--image-size", "32", "--device", "cpu", "--wandb", "disabled", "--tta", "flip", "--out", str(out),
        ])  # fmt: skip
    return out


@pytest.fixture(scope="session")
def full_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four published runs on 5 breeds whose names must be escaped, never trained; only to be read."""
    from tests.support.finished_folders import write_folder  # not every test needs what a report does

    breeds = ["Chihuahua", "NA", "<script>alert(1)</script>", 'quoted "terrier"', "Maltese & dog"]
    return write_folder(tmp_path_factory.mktemp("full") / "full", breeds)


@pytest.fixture(scope="session")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four published runs on 120 breeds with 4 test images each, never trained; only to be read."""
    from tests.support.finished_folders import write_folder

    breeds = ["<script>document.title='broken'</script>", '"onerror=alert(1) x="']
    breeds += [f"breed {number:03}" for number in range(118)]
    return write_folder(tmp_path_factory.mktemp("large") / "run", breeds, num_test=4)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared real data, beside the checkout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared real data (../shared/data) are absent")
    return folder


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Make the CPU kernels use each instruction set that this CPU has, in turn."""
    used = ops.limit_instruction_set(request.param)
    try:
        if used != request.param:
            pytest.skip(f"this CPU has no {request.param}")
        yield used
    finally:
        ops.limit_instruction_set("avx512")
