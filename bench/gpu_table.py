"""`python -m bench.gpu_table`: what `bench.gpu_check` found, as Markdown; `bench.write_docs` puts it into the docs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu_check import KEPT
from dogs_accel.runtime.files import read_json

OWED = """\
GPU figures are owed: none has been measured. The CUDA kernels have been compiled, and those of the loaders' operators
have been run on a CPU thread by thread; nothing has been run on a GPU yet."""
PUBLISHED_SECONDS = 2_131


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_table", description=__doc__)
    parser.add_argument("--results", type=Path, default=KEPT, metavar="FILE", help="of bench.gpu_check")
    print(gpu_figures(parser.parse_args(arguments).results))
    return 0


def gpu_figures(results: Path) -> str:
    """Return the Markdown of kept results, or that they are owed."""
    return describe_results(read_json(results)) if results.is_file() else OWED


def describe_results(report: dict[str, Any]) -> str:
    """Lay out the machine, what each part came to, and the figures."""
    blocks = [describe_machine(report), table_of_parts(report["parts"])]
    for name, part in report["parts"].items():
        results = part.get("results", {})
        rows = [row for result in results.values() for row in rows_of(result)]
        if rows:
            head = [f"| {part['title']} (`{name}`) | | against the first |", "|---|---|---|"]
            blocks.append("\n".join([*head, *rows]))
        blocks += [table_of_runs(result) for key, result in results.items() if key.startswith("training_runs")]
    return "\n\n".join(blocks)


def describe_machine(report: dict[str, Any]) -> str:
    """Say on what it was measured, and when."""
    environment = report["environment"] or {}
    gpus = [f"{gpu['name']} ({gpu['memory_gib']:g} GiB)" for gpu in environment.get("gpus", [])]
    versions = [f"{name} {version}" for name, version in environment.get("packages", {}).items()
                if version and name in ("torch", "torchvision")]  # fmt: skip
    where = f"{', '.join(gpus) or 'no GPU'}, {environment.get('cpu')}, {environment.get('cores')} cores"
    return f"{where}; {', '.join(versions)}; {report['date']}. What `make gpu-check` found there:"


def table_of_parts(parts: dict[str, Any]) -> str:
    """A row for each part: what it is, what it came to, its seconds."""
    rows = ["| part | came to | s |", "|---|---|---|"]
    for name, part in parts.items():
        said = part["status"]
        tests = part.get("tests")
        if tests is not None and part["status"] != "skipped":
            said += f": {tests['passed']:,} tests passed, {tests['failed']:,} failed, {tests['skipped']:,} skipped"
        if part["reason"]:
            said += f"; {part['reason']}"
        rows.append(f"| `{name}`: {part['title']} | {_cell(said)} | {part['seconds']:.0f} |")
    return "\n".join(rows)


def rows_of(result: dict[str, Any]) -> list[str]:
    """The rows of one benchmark: its title, then each candidate with its rate and how it stands to the first."""
    rows = [f"| **{_cell(result['title'])}** | | |"] if "rows" in result or "with_model" in result else []
    for name, found in result.get("with_model", {}).items():
        share = found["end_to_end_rate"] / found["compute_rate"]
        said = f"{100 * share:.1f} % of tensors that are there, {100 * found['wait_share']:.1f} % waiting"
        rows.append(f"| {_cell(name)} | {found['end_to_end_rate']:,.0f} {result['unit']} | {said} |")
    for row in result.get("rows", []):
        if "bytes_per_second" in row:
            rate, unit, kind = row["bytes_per_second"] / 1e9, "GB/s", "share"
        else:
            rate, unit, kind = row["rate"], result["unit"], "ratio"
        ratio = row.get("share_of_copy") if kind == "share" else row.get("ratio")
        against = "" if ratio is None else f"{ratio:.2f} ({row[f'{kind}_low']:.2f} to {row[f'{kind}_high']:.2f})"
        rows.append(f"| {_cell(row['candidate'])} | {rate:,.0f} {unit} | {against} |")
    return rows


def table_of_runs(result: dict[str, Any]) -> str:
    """A row for each phase of the published runs; where they were cut, what there is and no more."""
    rows = ["| run | phase | epochs | s | of that waiting for data |", "|---|---|---|---|---|"]
    for name, run in result["runs"].items():
        for phase in run["phases"]:
            waiting = phase["data_wait_seconds"] / phase["seconds"] if phase["seconds"] else 0.0
            rows.append(
                f"| {name} | {phase['phase']} | {phase['epochs']} | {phase['seconds']:.1f} | {100 * waiting:.1f} % |"
            )
    seconds, num_epochs = (sum(run[key] for run in result["runs"].values()) for key in ("seconds", "epochs"))
    if result["is_complete"]:
        published = f"published on an A100: {PUBLISHED_SECONDS:,} s"
        said = f"In all {seconds:.0f} s of training on {result['num_images']:,} generated pictures ({published})."
    else:
        said = f"The runs were cut: {seconds:.0f} s of training in {num_epochs} epochs are what was measured of them."
    return "\n".join([*rows, "", said])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
