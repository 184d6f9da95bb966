"""The arrows of the design: what may import what."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = {"dogs_accel.ops", "dogs_accel.timing"}
# Each may import those to its left, itself and the leaves; what is in no list is free of rules of order.
ORDER = [
    "files", "splits", "datasets", "phases", "models", "layer_groups", "flops", "amp", "numerics", "distributed",
    "out_of_memory", "checkpoint", "scores", "intervals", "training_step", "step_profile", "features", "train",
    "evaluate",
    "pairwise", "tracking", "plots", "profile_summary", "parity", "parity_report", "metadata_files", "duplicates",
    "metadata", "eda", "comparison", "explain", "explanation_scores", "explanation_plots", "explanations", "config",
    "finished_run", "mistakes", "quality_error", "per_breed", "galleries", "run_folder", "claims", "report", "plan",
    "loading", "experiment", "inference", "heatmaps", "export", "estimate", "candidates", "ceilings", "coldstart",
    "throughput", "bottleneck", "throughput_plots", "throughput_report", "benchmark",
]  # fmt: skip


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules("pipelines"), ids=lambda path: path.name)
def test_pipelines_know_nothing_of_models_or_reports(path):
    ours = {name for name in imports(path) if name.split(".")[0] in ("dogs_accel", "bench", "tests")}
    allowed = {name for name in ours if any(name == leaf or name.startswith(f"{leaf}.") for leaf in LEAVES)}
    assert ours <= allowed | {"dogs_accel"}


@pytest.mark.parametrize("path", modules("dogs_accel"), ids=lambda path: path.name)
def test_the_package_imports_neither_its_tests_nor_its_benchmarks(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("bench", "tests")}


@pytest.mark.parametrize("name", ORDER)
def test_nothing_imports_what_comes_after_it(name):
    later = {f"dogs_accel.{other}" for other in ORDER[ORDER.index(name) + 1 :]}
    paths = modules(f"dogs_accel/{name}") or [ROOT / "dogs_accel" / f"{name}.py"]
    for path in paths:
        assert not {found for found in imports(path) if found in later}, path


def test_the_package_itself_imports_quickly():
    assert not {
        name for name in imports(ROOT / "dogs_accel" / "__init__.py") if name.split(".")[0] in ("torch", "pandas")
    }
