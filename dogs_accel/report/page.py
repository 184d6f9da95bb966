"""From folders of runs to the page: what the template is given, and the file."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dogs_accel.report.claims import VERDICTS, count_verdicts, judge_claims, write_claims
from dogs_accel.report.explorer.page import remove_explorer, why_no_explorer, write_explorer
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
from dogs_accel.results.layout import CLAIMS_FILE, EXPLORER_FILE, PAIRWISE_FILE, REPORT_FILE, explorer_pictures
from dogs_accel.runtime.files import replacing, update_manifest
from dogs_accel.steps import Step, any_failure_ends


def write_report(folder: RunsFolder, step: Step = any_failure_ends) -> Path:
    """Write report.html and explorer.html into the folder of a benchmark, and their checksums into its manifest.

    Where something was published about the dataset claims.json is written too; else there is none. Reads nothing but
    the folder's files, and those of the test images; what is absent is said to be. step: the block of the explorer,
    whose failure never costs the report. Returns the path of the report. Raises ValueError, naming the file, where a
    file cannot be read.
    """
    claims = judge_claims(folder)
    page, explorer = folder.folder / REPORT_FILE, folder.folder / EXPLORER_FILE
    written: list[Path] = []
    gone = [CLAIMS_FILE, REPORT_FILE, *_listed(folder.manifest, explorer)]
    try:
        written += _write_explorer([folder], explorer, page, step)
    finally:
        written.append(_write(render_report([folder], [claims], explorer if written else None), page))
        if claims:
            written.append(write_claims(folder.folder, claims))
        else:
            (folder.folder / CLAIMS_FILE).unlink(missing_ok=True)  # of an earlier version, which knew one dataset
        update_manifest(folder.folder, written, gone=gone, manifest=folder.manifest)
    return page


def write_comparison_report(folders: Sequence[RunsFolder], path: Path, step: Step = any_failure_ends) -> Path:
    """Write one report over the runs of several folders, each run labelled by its folder, and its explorer.

    The explorer is that of `explorer_beside`, where all folders were tested on the same images. Raises
    ValueError as `write_report` does, or where a folder is given twice.
    """
    if len({folder.folder for folder in folders}) < len(folders):
        raise ValueError("RUN: got the same folder twice, expected different ones")
    claims = [judge_claims(folder) for folder in folders]
    explorer = explorer_beside(path)
    written: list[Path] = []
    try:
        written += _write_explorer(folders, explorer, path, step)
    finally:
        _write(render_report(folders, claims, explorer if written else None), path)
    return path


def explorer_beside(report: Path) -> Path:
    """Give the explorer of a report that lies in no folder of runs: <name of the report>_explorer.html beside it."""
    return report.with_name(f"{report.stem}_{EXPLORER_FILE}")


def _write_explorer(folders: Sequence[RunsFolder], explorer: Path, report: Path, step: Step) -> list[Path]:
    """Write the explorer that belongs to a report; where there is none, or it fails, that of an earlier time goes."""
    written: list[Path] = []
    try:
        if why_no_explorer(folders) is None:
            with step(explorer.name):
                written = write_explorer(folders, explorer, _title(folders), report.name)
    finally:
        if not written:
            remove_explorer(explorer)
    return written


def _listed(manifest: Mapping[str, Any], explorer: Path) -> list[str]:
    """Name what a manifest has of an explorer."""
    own = (explorer.name, explorer_pictures(explorer).name)
    return [name for name in manifest["files"] if Path(name).parts[0] in own]


def _write(html: str, path: Path) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def render_report(
    folders: Sequence[RunsFolder], claims: Sequence[Sequence[Mapping[str, Any]]], explorer: Path | None = None
) -> str:
    """Lay out the page of one or more folders; claims: what `judge_claims` says of each; explorer: its page, if any."""
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
        table=summary_table(views, compared),
        precision=precision_table(views, compared),
        cost=cost_table(views),
        recommendations=_recommendations(views, compared, are_tested_alike),
        pairwise=pairs,
        has_claims=any(claims),
        confusion=confusion_data(views, noun, plural),
        verdicts=VERDICTS,
        explorer=None if explorer is None else urllib.parse.quote(os.fsencode(explorer.name)),
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
