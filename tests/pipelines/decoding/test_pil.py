"""What the pixels of unusual pictures are, what is refused and why, and that nothing is said or left behind."""

import io
import os
import socket
import subprocess
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipelines.decoding.files import decode_files
from pipelines.decoding.pil import BadImageError, decode_rgb, open_image, open_rgb
from tests.support.picture_files import KINDS, UNUSUAL, encoded, picture


@pytest.mark.fault("Photos", "16-bit grey (PNG, TIFF, PGM)", "scaled to 8 bits by 257, the whole range")
@pytest.mark.fault(
    "Photos", "transparency (RGBA, LA, a palette or one colour of it)", "drawn over white; hidden colours stay hidden"
)
@pytest.mark.fault("Photos", "large text or colour profiles, corrupt EXIF, animations", "the pixels, and no warning")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_the_pixels_follow_the_rule_without_a_warning(kind):
    content, expected = UNUSUAL[kind]
    np.testing.assert_array_equal(np.asarray(decode_rgb(io.BytesIO(content))), expected)


def problem_of(content):
    with pytest.raises(BadImageError) as refused:
        decode_rgb(io.BytesIO(content))
    return str(refused.value)


@pytest.mark.fault("Photos", "32-bit integers or floats", "refused by name: they have no rule for what is white")
@pytest.mark.parametrize(
    ("pixels", "file_format", "kind"),
    [(np.float32, "TIFF", "32-bit float"), (np.int32, "TIFF", "32-bit integer"), (np.float32, "PPM", "32-bit float")],
)
def test_depths_without_a_scale_are_refused(pixels, file_format, kind):
    image = Image.fromarray(np.full((4, 5), 700, pixels))
    assert problem_of(encoded(image, file_format)) == f"{kind} picture, expected 8 or 16 bits a channel"


def container(brand, *compatible):
    inside = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return (len(inside) + 4).to_bytes(4, "big") + inside + bytes(40)


@pytest.mark.fault(
    "Photos",
    "HEIC, AVIF, JPEG XL, PDF, SVG, a video, a web page or an empty file, called .jpg",
    "one line with what it is and what to do",
)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (container(b"heic", b"mif1"), "a HEIC picture, which Pillow does not read: convert it to JPEG, or install "
                                      "pillow-heif and register it"),
        (container(b"mif1", b"heic"), "a HEIC picture, "),
        (container(b"avif", b"mif1"), "AVIF picture"),
        (container(b"isom", b"mp41"), "a video, not a picture: "),
        (container(b"qt  "), "a video, "),
        (b"\x1aE\xdf\xa3\x01", "a video, "),
        (b"RIFF\x10\x27\0\0AVI LIST", "a video, "),
        (b"\xff\x0a\x00", "a JPEG XL picture, which Pillow does not read: "),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture, "),
        (b"%PDF-1.7", "a PDF document, not a picture: "),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="x"/>', "an SVG drawing, "),
        (b"<svg/>", "an SVG drawing, "),
        (b"\n<!DOCTYPE html><title>403", "a web page, not a picture: "),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, "),
        (b"II*\0\x08\0\0\0", "a TIFF picture that is damaged or of a kind that Pillow does not read"),
        (b"", "an empty file"),
        (b"no picture", "not an image"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_named_by_its_first_bytes(content, words):
    assert words in problem_of(content)


@pytest.mark.fault(
    "Photos", "a picture of more pixels than the limit", "one line with the limit and the variable that raises it"
)
def test_the_limit_is_ours_and_can_be_moved(monkeypatch):
    content = encoded(picture(40, 30), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow would warn, and refuse 1,001
    assert decode_rgb(io.BytesIO(content)).size == (40, 30)
    monkeypatch.setenv("DOGS_ACCEL_MAX_PIXELS", "1199")
    assert problem_of(content) == (
        "more than 1,199 px, the limit, which the environment variable DOGS_ACCEL_MAX_PIXELS raises"
    )
    monkeypatch.setenv("DOGS_ACCEL_MAX_PIXELS", "30")  # so few that Pillow itself refuses
    assert problem_of(content).startswith("more than 30 px, ")
    monkeypatch.setenv("DOGS_ACCEL_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match=r"^DOGS_ACCEL_MAX_PIXELS: got 'many', expected an integer >= 1$"):
        decode_rgb(io.BytesIO(content))


def settings():
    return (
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, list(warnings.filters)
    )  # fmt: skip


def test_pillow_is_left_as_it_was_found():
    """By the last of several threads that decode at once, and in a process that is forked meanwhile."""
    before = settings()
    first, second = (open_image(io.BytesIO(KINDS["grey"])) for _ in range(2))
    first.__enter__()
    thread = threading.Thread(target=second.__enter__)
    thread.start()
    thread.join()
    inside = settings()
    assert inside[1] > before[1]
    assert (child := os.fork()) or os._exit(settings() != before)
    assert os.waitpid(child, 0)[1] == 0
    warnings.simplefilter("ignore", BytesWarning)  # somebody else's stays
    second.__exit__(None, None, None)
    assert settings()[1:3] == inside[1:3]
    first.__exit__(None, None, None)
    assert settings()[:3] == before[:3]
    assert settings()[3] == [("ignore", None, BytesWarning, None, 0), *before[3]]
    with pytest.raises(BadImageError):
        decode_rgb(io.BytesIO(b"no picture"))
    assert settings()[:3] == before[:3]


@pytest.mark.fault("Photos", "a pipe, a socket or a device for a photo", "refused at once; nothing waits for it")
def test_what_would_be_waited_for_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        paths = [*map(str, tmp_path.iterdir()), "/dev/zero"]
        assert len(paths) == 4
        for path in paths:
            with pytest.raises(BadImageError, match=r"^not a regular file$"):
                decode_rgb(path)
        problems = [file.problem for files in decode_files(paths) for file in files]
    assert problems == ["not a regular file"] * 4


@pytest.mark.fault("Photos", "PostScript that is called like a photo", "refused by name; no Ghostscript is started")
def test_postscript_is_refused_and_never_run(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (20, 10)).save(path, "EPS")
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("Ghostscript is started"))
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    with pytest.raises(BadImageError, match=r"photo\.jpg: a PostScript drawing, not a picture: export it as PNG$"):
        open_rgb(str(path))
