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


def embed_picture(
    path: Path, folder: Path, alt: str, max_width_px: int = MAX_WIDTH_PX, content: bytes | None = None
) -> Picture | None:
    """Embed an image file, scaled down to max_width_px and recompressed; None where there is no such file.

    content: of the file, for who has read it already. Raises ValueError, naming the file, where it is not an image.
    """
    if content is None and not path.exists():
        return None
    recompressed, width, height = webp_file(path, max_width_px, content)
    return Picture(data_uri(recompressed), width, height, alt, path.relative_to(folder).as_posix())


def webp_file(path: Path, max_width_px: int, content: bytes | None = None) -> tuple[bytes, int, int]:
    """Recompress an image file, scaled down to max_width_px: its content, width and height.

    As WebP, with the loss of detail that photos hide and that text survives. content: of the file, for who has read it
    already. Raises ValueError, naming the file, where it is not an image.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error
    if image.width > max_width_px:
        image = image.resize((max_width_px, round(image.height * max_width_px / image.width)), Image.Resampling.LANCZOS)
    return webp(image), image.width, image.height


def webp(image: Image.Image, quality: int | None = _QUALITY) -> bytes:
    """Encode an RGB image as WebP; of quality None nothing is lost."""
    content = io.BytesIO()
    if quality is None:
        image.save(content, "WEBP", lossless=True)
    else:
        image.save(content, "WEBP", quality=quality, method=4)
    return content.getvalue()


def data_uri(content: bytes) -> str:
    """Write the content of a WebP file as what a page embeds."""
    return f"data:image/webp;base64,{base64.b64encode(content).decode('ascii')}"
