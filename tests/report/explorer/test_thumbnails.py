import io

import numpy as np
from PIL import Image

from dogs_accel.report.explorer.thumbnails import COLUMNS, PER_SHEET, SIDE_PX, make_sheets


def test_each_file_is_in_its_place_in_small(dogs_root, tmp_path):
    photos = sorted(dogs_root.rglob("*.jpg"))[: PER_SHEET + 2]
    (tmp_path / "broken.jpg").write_bytes(photos[0].read_bytes()[:300])
    wide = tmp_path / "wide.png"
    Image.new("RGBA", (30, 10), (200, 30, 30, 255)).save(wide)
    paths = [str(tmp_path / "gone.jpg"), *map(str, photos), "", str(tmp_path / "broken.jpg"), str(wide)]
    sheets = make_sheets(paths)
    sizes = [size for sheet in sheets for size in sheet.sizes_px]
    assert [len(sheet.sizes_px) for sheet in sheets] == [PER_SHEET, len(paths) - PER_SHEET]
    assert [path for path, size in zip(paths, sizes, strict=True) if size == (0, 0)] == [paths[0], "", paths[-2]]
    assert sizes[-1] == (30, 10)  # a small one is not enlarged
    for number in (1, 17, PER_SHEET, PER_SHEET + 2, len(paths) - 1):
        sheet, at = divmod(number, PER_SHEET)
        row, column = divmod(at, COLUMNS)
        (width, height), left, top = sizes[number], SIDE_PX * column, SIDE_PX * row
        shown = Image.open(io.BytesIO(sheets[sheet].content)).crop((left, top, left + width, top + height))
        with Image.open(paths[number]) as photo:
            expected = photo.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        assert max(width, height) == min(SIDE_PX, max(photo.size))
        assert np.abs(np.asarray(shown, dtype=float) - np.asarray(expected, dtype=float)).mean() < 8


def test_without_a_single_picture_there_is_no_sheet():
    [sheet] = make_sheets(["/none/a.jpg", "/none/b.jpg"])
    assert sheet.content is None
    assert sheet.sizes_px == [(0, 0)] * 2
    assert make_sheets([]) == []
