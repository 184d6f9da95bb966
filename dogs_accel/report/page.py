"""From folders of runs to the page: what the template is given, and the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dogs_accel.report.claims import VERDICTS, count_verdicts, judge_claims, write_claims
from dogs_accel.report.limits import limits
from dogs_accel.report.recommend import recommend
from dogs_accel.report.rendering import SCRIPTS, STYLES, assets, page_environment
from dogs_accel.report.stations import data_station, head_station, input_station, output_station, representation_station
from dogs_accel.report.summary import (
    RunView,
    compared_over_folders,
    confusion_data,
    cost_table,
    pairs_between,
    pairwise_view,
    precision_table,
    run_views,
    shared_nouns,
    summary_table,
)
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import CLAIMS_FILE, PAIRWISE_FILE, REPORT_FILE
from dogs_accel.runtime.files import replacing, update_manifest


def write_report(folder: RunsFolder) -> Path:
    """Write report.html into the folder of a benchmark, and its checksum into its manifest.

    Where something was published about the dataset claims.json is written too; else there is none. Reads nothing but
    the folder's files; what is absent is said to be. Returns the path of the report. Raises ValueError, naming the
    file, where a file cannot be read.
    """
    claims = judge_claims(folder)
    written = [_write(render_report([folder], [claims]), folder.folder / REPORT_FILE)]
    if claims:
        written.append(write_claims(folder.folder, claims))
    else:
        (folder.folder / CLAIMS_FILE).unlink(missing_ok=True)  # that of an earlier version, which knew one dataset
    update_manifest(folder.folder, written, gone=[CLAIMS_FILE, REPORT_FILE], manifest=folder.manifest)
    return written[0]


def write_comparison_report(folders: Sequence[RunsFolder], path: Path) -> Path:
    """Write one report over the runs of several folders, each run labelled by its folder.

    Raises ValueError as `write_report` does, or where a folder is given twice.
    """
    if len({folder.folder for folder in folders}) < len(folders):
        raise ValueError("RUN: got the same folder twice, expected different ones")
    return _write(render_report(folders, [judge_claims(folder) for folder in folders]), path)


def _write(html: str, path: Path) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def render_report(folders: Sequence[RunsFolder], claims: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Lay out the page of one or more folders; claims: what `judge_claims` says of each."""
    environment = page_environment()
    views = run_views(folders)
    noun, plural = shared_nouns(folders)
    tested = {folder.test_images for folder in folders} if len(folders) > 1 else set()
    are_tested_alike = len(tested) < 2 and None not in tested
    pairs = [view for folder in folders if (view := pairwise_view(folder, views)) is not None]
    compared = folders[0].table(PAIRWISE_FILE)
    if len(folders) > 1:
        compared = compared_over_folders(views) if are_tested_alike else None
        pairs += [] if compared is None else [pairs_between(compared, views)]
    shown = [
        _folder_view(folder, [view for view in views if view.folder is folder], judged)
        for folder, judged in zip(folders, claims, strict=True)
    ]
    return environment.get_template("report.html.j2").render(
        css=assets(environment, *STYLES),
        js=assets(environment, *SCRIPTS),
        title=_title(folders),
        several=len(folders) > 1,
        noun=noun,
        plural=plural,
        folders=shown,
        runs=views,
        table=summary_table(views),
        precision=precision_table(views),
        cost=cost_table(views),
        recommendations=_recommendations(views, compared, are_tested_alike),
        pairwise=pairs,
        has_claims=any(claims),
        confusion=confusion_data(views, noun, plural),
        verdicts=VERDICTS,
    )


def _title(folders: Sequence[RunsFolder]) -> str:
    models = list(dict.fromkeys(run.model for folder in folders for run in folder.runs))
    titles = list(dict.fromkeys(folder.facts.title for folder in folders))
    subject = " and ".join(titles) if len(titles) < 4 else f"{len(titles)} datasets"
    return f"{' against '.join(models) if len(models) < 4 else f'{len(models)} models'} on {subject}"


def _folder_view(folder: RunsFolder, views: list[RunView], claims: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "label": views[0].folder_label,
        "facts": folder.facts,
        "device": folder.device,
        "num_images": folder.num_images,
        "num_classes": folder.num_classes,
        "dataset": folder.facts.title,
        "ended": max(run.record.updated_at for run in folder.runs)[:10],
        "unfinished": folder.unfinished,
        "not_made": folder.not_made,
        "runs": views,
        "data": data_station(folder),
        "input": input_station(folder, views),
        "representation": representation_station(folder, views),
        "head": head_station(views),
        "output": output_station(folder, views),
        "claims": claims,
        "claim_counts": count_verdicts(claims),
        "limits": limits(folder),
        "config": folder.config,
        "environment": folder.environment,
        "checksums": folder.checksums,
    }


def _recommendations(views: Sequence[RunView], compared: pd.DataFrame | None, are_tested_alike: bool) -> dict[str, Any]:
    """Recommend among runs that were tested on the same images, and say so where they were not."""
    if not are_tested_alike:
        return {"rows": [], "why_not": "The folders were not tested on the same images, so no run is recommended."}
    rows = recommend([view.run for view in views], compared)
    return {"rows": rows, "why_not": "" if rows else "One configuration is not a choice, so nothing is recommended."}
