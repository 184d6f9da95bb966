"""What a file is that Pillow cannot identify, by its first bytes, and what to do with it."""

from __future__ import annotations

import re

from PIL import Image, features

NUM_FIRST_BYTES = 1024
"""So many are looked at."""
NOT_READ = "Pillow does not read"
"""What is said of a picture that another Pillow, or a plugin of it, may read."""
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_VIDEO = "a video, not a picture: take out the frames that are meant and save them as JPEG"
_HEIC = f"a HEIC picture, which {NOT_READ}: convert it to JPEG, or install pillow-heif and register it"
_AVIF = f"an AVIF picture, which this {NOT_READ}: convert it to JPEG, or install a Pillow that reads AVIF"
_JPEG_XL = f"a JPEG XL picture, which {NOT_READ}: convert it to JPEG or PNG"
POSTSCRIPT = "a PostScript drawing, not a picture: export it as PNG"
"""Pillow would hand it to Ghostscript, which runs it as a program."""
_OTHERS = (
    (rb"\xff\x0a|\0\0\0\x0cJXL ", _JPEG_XL),
    (rb"%PDF", "a PDF document, not a picture: export its pages as PNG"),
    (rb"\s*(<\?xml.*)?<svg\b", "an SVG drawing, which Pillow does not read: export it as PNG"),
    (rb"\s*(<!doctype html|<html)\b", "a web page, not a picture: download the picture itself"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not a picture: fetch the picture with `git lfs pull`"),
    (rb"RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|....(moov|mdat|wide|free|skip)", _VIDEO),
    (
        rb"II[*+]\0|MM\0[*+]",
        f"a TIFF picture that is damaged or of a kind that {NOT_READ}, such as more than 16 bits a channel: "
        "convert it to PNG",
    ),
)


def describe_no_image(first: bytes) -> str:
    """Say in one line what a file is that begins with these bytes, and what to do where that is known."""
    if not first:
        return "an empty file"
    if first[4:8] == b"ftyp":
        return _describe_container(first)
    start = first.removeprefix(b"\xef\xbb\xbf")
    return next((what for pattern, what in _OTHERS if re.match(pattern, start, re.IGNORECASE | re.DOTALL)), _UNKNOWN)


_UNKNOWN = "not an image"


def _describe_container(first: bytes) -> str:
    """Say what lies in an ISO media file, by its brand and those that it is compatible with."""
    brand, compatible = first[8:12], first[16 : int.from_bytes(first[:4], "big")]
    if brand in (b"avif", b"avis") or b"avif" in compatible:
        return "a damaged AVIF picture" if features.check("avif") else _AVIF
    if brand in _HEIC_BRANDS:
        return "a damaged HEIC picture" if "HEIF" in Image.OPEN else _HEIC
    if brand == b"crx ":
        return "a raw picture of a camera (CR3), which Pillow does not read: convert it to JPEG"
    return _VIDEO
