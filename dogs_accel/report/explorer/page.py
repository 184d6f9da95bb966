"""The explorer's page: its data, its pictures, inside it where they are few, and the file."""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dogs_accel.explain.drawings import METHOD_NAMES
from dogs_accel.explain.run import EXPLAINED_FILE, EXPLANATIONS_FILE, EXPLANATIONS_FOLDER, picture_name
from dogs_accel.report.explorer.answers import (
    LEAST_SHOWN,
    PARTS_OF_ONE,
    ExploredImages,
    answers_of,
    explored_images,
    image_rows,
    quality_data,
)
from dogs_accel.report.explorer.feature_maps import feature_map_data
from dogs_accel.report.explorer.media import Media
from dogs_accel.report.explorer.thumbnails import COLUMNS, PER_SHEET, SIDE_PX, make_sheets
from dogs_accel.report.pictures import webp_file
from dogs_accel.report.rendering import assets, page_environment
from dogs_accel.report.summary import RunView, run_views, shared_nouns
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import explorer_pictures
from dogs_accel.results.reading import missing_columns
from dogs_accel.runtime.files import replacing
from dogs_accel.runtime.terminal import escaped

LARGEST_PAGE_BYTES = 8_000_000
"""Of a page with its pictures inside; of a larger one they lie in a folder beside it."""
_MAP_WIDTH_PX = 680
_KINDS = ("sheet", "map", "crops", "stage")
"""What the names of pictures begin with."""
_SHOWN_DATA = re.compile(r'<script type="application/json" id="answers">(.*?)</script>', re.DOTALL)
_ANSWERS = ("top", "true", "rank")
"""Of a run, as `answers_of` packs them."""


def why_no_explorer(folders: Sequence[RunsFolder]) -> str | None:
    """Say why there is no explorer of some folders; None where there can be one."""
    if not any(run.has_predictions for folder in folders for run in folder.runs):
        return "no run has the logits of its test images"
    tested = {(folder.test_images, *folder.class_names) for folder in folders}
    if len(folders) > 1 and (len(tested) > 1 or folders[0].test_images is None):
        return "the folders were not tested on the same images"
    return None


def write_explorer(folders: Sequence[RunsFolder], page: Path, title: str, report: str) -> list[Path]:
    """Write the explorer of some folders to a page, and the folder of its pictures where they are too many for that.

    Reads the saved logits, the metadata, the files of the test images, and the heat maps and feature maps that the runs
    have; asks no model. Test images that have no picture, since their files are gone or cannot be read, are counted in
    a printed line. A page that is there stays as it is where it shows the same answers with more pictures. title: of
    the page; report: name of the report that lies beside it. Returns what was written, or what stayed. Raises
    ValueError where `why_no_explorer` says why, or, naming the file, where one cannot be read.
    """
    if reason := why_no_explorer(folders):
        raise ValueError(f"explorer: {reason}")
    views = [view for view in run_views(folders) if view.run.has_predictions]
    images = explored_images(views)
    rows = image_rows(folders[0], images)
    data = _data(folders, views, images, rows)
    media = Media()
    paths = rows["image_path"].fillna("").tolist()
    data["sheets"] = [
        {
            "picture": media.add(f"sheet_{number:04}", sheet.content),
            "sizes": [side for size in sheet.sizes_px for side in size],
        }
        for number, sheet in enumerate(make_sheets(paths))
    ]
    num_missing = _num_without_picture(data)
    before = _shown_in(page)
    if num_missing and before is not None and _answers(before) == _answers(data):
        num_before = _num_without_picture(before, page.parent)
        if num_before < num_missing:
            print(
                f"  {escaped(page.name)}: stays as it was, with {num_before:,} pictures missing; made again it would "
                f"lack {num_missing:,} of {len(paths):,}, whose files are gone or cannot be read",
                flush=True,
            )
            return [page, *_pictures_of(page)]
    if num_missing:
        print(
            f"  {escaped(page.name)}: {num_missing:,} of {len(paths):,} pictures are missing, since their files are "
            "gone or cannot be read",
            flush=True,
        )
    for view, run in zip(views, data["runs"], strict=True):
        run["maps"] = _maps(view, images, media)
        run["inside"] = feature_map_data(view, media)
    _remove_pictures(page)
    html = _render(data, media.inside(), title, report)
    if len(html) > LARGEST_PAGE_BYTES:
        html = _render(data, media.beside(explorer_pictures(page)), title, report)
        written = media.write(explorer_pictures(page))
    else:
        written = []
    with replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return [page, *written]


def remove_explorer(page: Path) -> None:
    """Remove an explorer that was written, with its pictures."""
    page.unlink(missing_ok=True)
    _remove_pictures(page)


def _num_without_picture(data: Mapping[str, Any], folder: Path | None = None) -> int:
    """Count the test images that a page shows without a small picture; data: of the page.

    folder: where the page lies, whose pictures beside it may have gone; None looks for none.
    """
    num = 0
    for sheet in data["sheets"]:
        sizes = [tuple(sheet["sizes"][at : at + 2]) for at in range(0, len(sheet["sizes"]), 2)]
        picture = None if folder is None or sheet["picture"] is None else data["pictures"][sheet["picture"]]
        is_lost = picture is not None and folder is not None and not _is_there(picture, folder)
        num += len(sizes) if is_lost else sizes.count((0, 0))
    return num


def _is_there(picture: str, folder: Path) -> bool:
    return picture.startswith("data:") or (folder / urllib.parse.unquote(picture)).is_file()


def _shown_in(page: Path) -> dict[str, Any] | None:
    """Read the data of a page that was written; None where there is none of this version."""
    if not page.is_file():
        return None
    found = _SHOWN_DATA.search(page.read_text(encoding="utf-8", errors="replace"))
    try:
        data = None if found is None else json.loads(found[1])
    except json.JSONDecodeError:  # of a page that somebody has edited
        return None
    is_known = isinstance(data, dict) and {"classes", "ids", "labels", "runs", "sheets", "pictures"} <= data.keys()
    return data if is_known else None


def _answers(data: Mapping[str, Any]) -> Any:
    """Take of a page what the runs answered to which images, as its file has it."""
    runs = [[run.get(key) for key in ("label", *_ANSWERS)] for run in data["runs"]]
    return json.loads(json.dumps([data["classes"], data["ids"], data["labels"], runs]))


def _pictures_of(page: Path) -> list[Path]:
    """List the pictures that lie beside a page, and nothing else that may be there."""
    folder = explorer_pictures(page)
    return [path for kind in _KINDS for path in sorted(folder.glob(f"{kind}_*.webp"))] if folder.is_dir() else []


def _remove_pictures(page: Path) -> None:
    """Remove the pictures of an earlier time."""
    folder = explorer_pictures(page)
    for path in _pictures_of(page):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _data(
    folders: Sequence[RunsFolder], views: Sequence[RunView], images: ExploredImages, rows: pd.DataFrame
) -> dict[str, Any]:
    noun, plural = shared_nouns(folders)
    root, relative = _addresses(rows["image_path"].fillna("").tolist())
    return {
        "noun": noun,
        "plural": plural,
        "classes": folders[0].class_names,
        "ids": images.ids.tolist(),
        "labels": images.labels.tolist(),
        "root": root,
        "files": relative,
        "parts": PARTS_OF_ONE,
        "qualities": quality_data(rows),
        "thumbnails": {"side": SIDE_PX, "columns": COLUMNS, "per_sheet": PER_SHEET},
        "runs": [
            {
                "label": view.label,
                "colour": view.colour,
                **answers_of(view.run.predictions("test"), images),
            }
            for view in views
        ],
    }


def _addresses(paths: Sequence[str]) -> tuple[str, list[str]]:
    """Write absolute paths as a file: address of the folder that holds all of them, and what comes after it.

    "" of a path that is not known. An address is of the machine on which the runs were made.
    """
    known = {path for path in paths if os.path.isabs(path)}  # noqa: PTH117  # thousands of them
    if not known:
        return "", [""] * len(paths)
    root = os.path.commonpath([os.path.dirname(path) for path in known])  # noqa: PTH120
    after = [path[len(root) :].lstrip("/") if path in known else "" for path in paths]
    return Path(root).as_uri(), [urllib.parse.quote(os.fsencode(each)) for each in after]


def _maps(view: RunView, images: ExploredImages, media: Media) -> dict[str, Any]:
    """Take the heat maps that a run has made: numbers of pictures by image, and the methods, side by side."""
    table, facts = view.run.table(EXPLAINED_FILE), view.run.content(EXPLANATIONS_FILE) or {}
    if missing_columns(table, ["id", "method"]):
        return {"reason": facts.get("reason", "this run has none"), "methods": [], "of": {}}
    assert table is not None
    place_of = {image_id: place for place, image_id in enumerate(images.ids.tolist())}
    numbers: dict[str, int | None] = {}
    for image_id in table["id"].drop_duplicates():
        name = f"{EXPLANATIONS_FOLDER}/{picture_name(image_id)}"
        content = view.run.binary(name)
        if image_id in place_of and content is not None:
            place = place_of[image_id]
            recompressed, *_ = webp_file(view.run.folder / name, _MAP_WIDTH_PX, content)
            numbers[str(place)] = media.add(f"map_{view.id}_{place:06}", recompressed)
    methods = table["method"].drop_duplicates().tolist()
    return {"reason": "", "methods": [METHOD_NAMES.get(method, method) for method in methods], "of": numbers}


def _render(data: dict[str, Any], pictures: list[str], title: str, report: str) -> str:
    environment = page_environment("dogs_accel.report.explorer")
    return environment.get_template("explorer.html.j2").render(
        css=assets(environment, "report.css", "explorer.css"),
        js=assets(environment, "theme.js", "explorer.js"),
        title=title,
        report=urllib.parse.quote(os.fsencode(report)),
        least_shown=LEAST_SHOWN,
        data=data | {"pictures": pictures},
    )
