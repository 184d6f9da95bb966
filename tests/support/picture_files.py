"""Pictures as encoded files, of every kind that is told apart."""

import io

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


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


def over_white(colours, alpha):
    """What is seen of colours (H, W, 3) with alpha (H, W) on white paper."""
    alpha = alpha.astype(int)[..., None]
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def three(grey):
    return np.stack([grey] * 3, axis=-1)


def with_alpha(image, alpha):
    image.putalpha(Image.fromarray(alpha))
    return image


def _unusual():
    """Pictures whose 8 bits of RGB are a matter of a rule, and what it makes of them: {kind: (content, pixels)}."""
    width, height = 83, 61
    colours = np.asarray(picture(width, height))
    grey = np.asarray(picture(width, height, "L"))
    alpha = np.arange(width * height, dtype=np.uint32).reshape(height, width).astype(np.uint8)
    deep = np.random.default_rng(1).integers(0, 1 << 16, (height, width), dtype=np.uint16)
    deep[0, :6] = 0, 128, 129, 65406, 65407, 65535
    shallow = three(np.rint(deep / 257).astype(np.uint8))
    palette = picture(width, height, "P")
    index, table = np.asarray(palette), np.array(palette.getpalette()).reshape(-1, 3)
    alphas = np.arange(256, dtype=np.uint8)
    hidden = int(index[3, 4])
    colour = tuple(colours[5, 6].tolist())
    texts = PngInfo()
    texts.add_text("Comment", "much " * 300_000, zip=True)
    no_exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x0f\x01\x02\0\xff\xff\xff\x7f\x10\0\0\0" * 3
    rgba, la = (with_alpha(picture(width, height, mode), alpha) for mode in ("RGB", "L"))
    return {
        "RGBA": (encoded(rgba, "PNG"), over_white(colours, alpha)),
        "RGBA as WebP": (encoded(rgba, "WEBP", lossless=True, exact=True), over_white(colours, alpha)),
        "LA": (encoded(la, "PNG"), over_white(three(grey), alpha)),
        "a palette with alphas": (encoded(palette, "PNG", transparency=bytes(alphas)),
                                  over_white(table[index], alphas[index])),
        "a palette with a hidden colour": (encoded(palette, "PNG", transparency=hidden),
                                           np.where(three(index == hidden), 255, table[index]).astype(np.uint8)),
        "a hidden colour": (encoded(picture(width, height), "PNG", transparency=colour),
                            np.where(three((colours == colour).all(axis=-1)), 255, colours)),
        "a hidden grey": (encoded(picture(width, height, "L"), "PNG", transparency=int(grey[5, 6])),
                          three(np.where(grey == grey[5, 6], 255, grey))),
        "16 bits": (encoded(Image.fromarray(deep), "PNG"), shallow),
        "16 bits and a hidden grey": (encoded(Image.fromarray(deep), "PNG", transparency=int(deep[5, 6])),
                                      np.where(three(deep == deep[5, 6]), 255, shallow)),
        "16 bits as TIFF": (encoded(Image.fromarray(deep), "TIFF"), shallow),
        "16 bits as TIFF from the other end": (encoded(Image.fromarray(deep.astype(">u2")), "TIFF"), shallow),
        "16 bits as PGM": (b"P5 %d %d 65535 " % (width, height) + deep.astype(">u2").tobytes(), shallow),
        "much text": (encoded(picture(width, height), "PNG", pnginfo=texts), colours),
        "a large profile": (encoded(picture(width, height), "PNG", icc_profile=bytes(3 << 20)), colours),
        "an EXIF block that is damaged": (encoded(picture(width, height), "PNG", exif=no_exif), colours),
        "animated": (encoded(picture(width, height), "PNG", save_all=True,
                             append_images=[picture(width, height, seed=1)]), colours),
    }  # fmt: skip


UNUSUAL = _unusual()
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
    "EXIF that is damaged": encoded(picture(83, 61), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x0f\1\2\0\xff\xff"),
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
    **{kind: content for kind, (content, _) in UNUSUAL.items()},
}
