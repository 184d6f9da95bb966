"""Pictures of a run made small enough to travel inside the report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

MAX_WIDTH_PX = 1400
_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A picture as the page embeds it."""

    data_uri: str
    width: int
    height: int
    alt: str
    file: str
    """Its path in the folder of the run."""


def embed_picture(path: Path, folder: Path, alt: str, max_width_px: int = MAX_WIDTH_PX) -> Picture | None:
    """Embed an image file, scaled down to max_width_px and recompressed; None where there is no such file.

    As WebP, with the loss of detail that photos hide and that text survives. Raises ValueError, naming the file, where
    it is not an image.
    """
    if not path.exists():
        return None
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error
    if image.width > max_width_px:
        image = image.resize((max_width_px, round(image.height * max_width_px / image.width)), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "WEBP", quality=_QUALITY, method=4)
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return Picture(
        f"data:image/webp;base64,{encoded}", image.width, image.height, alt, path.relative_to(folder).as_posix()
    )
