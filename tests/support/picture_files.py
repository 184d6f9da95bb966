"""Pictures as encoded files, of every kind that is told apart."""

import io

import numpy as np
from PIL import Image


def picture(width, height, mode="RGB", seed=0):
    """Smooth colours with some noise, as photos have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(pixels + rng.integers(-8, 9, pixels.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert(mode)


def encoded(image, file_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def write(folder, contents):
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number:04d}.jpg")
        paths[-1].write_bytes(content)
    return paths


TURNED = Image.Exif()
TURNED[0x0112] = 6
KINDS = {
    "4:4:4": encoded(picture(83, 61), subsampling=0),
    "4:2:2": encoded(picture(83, 61), subsampling=1),
    "4:2:0": encoded(picture(83, 61), subsampling=2),
    "quality 1": encoded(picture(83, 61), quality=1),
    "quality 100": encoded(picture(83, 61), quality=100),
    "optimised": encoded(picture(83, 61), optimize=True),
    "progressive": encoded(picture(83, 61), progressive=True),
    "progressive grey": encoded(picture(83, 61, "L"), progressive=True),
    "grey": encoded(picture(83, 61, "L")),
    "restart markers": encoded(picture(83, 61), restart_marker_blocks=2),
    "RGB inside": encoded(picture(83, 61), keep_rgb=True),
    "turned by EXIF": encoded(picture(83, 61), exif=TURNED),
    "comment": encoded(picture(83, 61), comment=b"\xff\xd9 \xff\xda not markers"),
    "large": encoded(picture(1200, 900)),
    "one pixel": encoded(picture(1, 1)),
    "one row": encoded(picture(300, 1)),
    "one column": encoded(picture(1, 300)),
}
OTHERS = {
    "CMYK": encoded(picture(83, 61, "CMYK")),
    "PNG": encoded(picture(83, 61), "PNG"),
    "PNG with alpha": encoded(picture(83, 61, "RGBA"), "PNG"),
    "PNG with palette": encoded(picture(83, 61, "P"), "PNG"),
    "GIF": encoded(picture(83, 61, "P"), "GIF"),
    "BMP": encoded(picture(83, 61), "BMP"),
    "WebP": encoded(picture(83, 61), "WEBP"),
    "TIFF": encoded(picture(83, 61), "TIFF"),
}
