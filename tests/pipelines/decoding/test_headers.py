"""Whatever bytes a file has: its pixels, or one line that says why there are none; and what its markers say."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.decoding.jpeg import is_whole_jpeg
from pipelines.decoding.kinds import describe_no_image
from pipelines.decoding.limits import MAX_PIXELS_VARIABLE, max_pixels
from pipelines.decoding.pil import decode_rgb
from tests.support.fuzzing import fuzz, value_or_line


def encoded(kind, mode="RGB", **settings):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **settings)
    return file.getvalue()


JPEGS = [encoded("JPEG"), encoded("JPEG", "L", quality=30), encoded("JPEG", progressive=True), encoded("JPEG", "CMYK"),
         encoded("JPEG", restart_marker_blocks=1)]  # fmt: skip
OTHERS = [encoded("PNG"), encoded("PNG", "RGBA"), encoded("PNG", "P"), encoded("GIF", "P"), encoded("BMP"),
          encoded("TIFF"), encoded("TIFF", compression="tiff_lzw"), encoded("WEBP"), encoded("PPM")]  # fmt: skip


def damaged(data, whole):
    """The bytes of a file, some of which are others, mostly in its first part, and of which the end may be missing."""
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, min(80, len(content)) - 1) | st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xC0, 0xD9, 0xDA, 0xFF]) | st.integers(0, 255))
    return bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])


@pytest.fixture(scope="module", autouse=True)
def _small_pictures():
    """A damaged header that speaks of a hundred megapixels would fill the memory, as an undamaged one may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MAX_PIXELS_VARIABLE, "1000000")
        yield


@pytest.mark.fault(
    "Photos",
    "a photo with any damaged bytes, in its header or elsewhere, or cut off",
    "its pixels, or one line with the reason",
)
@fuzz(80)
@given(data=st.data())
def test_a_damaged_file_has_pixels_or_one_reason(data):
    content = damaged(data, data.draw(st.sampled_from(JPEGS + OTHERS)))
    image, _ = value_or_line(lambda: decode_rgb(io.BytesIO(content)))
    if image is not None:
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= 1_000_000


@fuzz(60)
@given(first=st.binary(max_size=40) | st.builds(bytes.__add__, st.sampled_from([
    b"", b"\0\0\0 ftyp", b"\0\0\0\x18ftypmif1", b"%PDF", b"RIFF", b"\xef\xbb\xbf<svg", b"<?xml", b"II*\0", b"\xff\x0a",
]), st.binary(max_size=40)))  # fmt: skip
def test_whatever_a_file_begins_with_it_is_described_in_one_line(first):
    words = describe_no_image(first)
    assert words.isprintable()
    assert 5 < len(words) < 200


@fuzz(60)
@given(text=st.text("0123456789+-_. ²", max_size=30) | st.just("9" * 5000))
def test_a_limit_is_a_number_or_one_line(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MAX_PIXELS_VARIABLE, text)
        limit, line = value_or_line(max_pixels)
    assert limit == int(text) if limit is not None else line.startswith(f"{MAX_PIXELS_VARIABLE}: got ")


def walked(content):
    """Whether a JPEG is whole, byte by byte as annex B of T.81 says it."""
    if content[:2] != b"\xff\xd8":
        return False
    at, frame, left, has_scan = 2, None, 0, False
    while content[at : at + 1] == b"\xff" and at + 4 < len(content) and content[at + 1] != 0xD9:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None or marker > 0xC2 or length < 8:
                return False
            frame, left = marker, content[at + 9] if at + 9 < len(content) else content[-1]
        if marker == 0xDA:
            has_scan = True
            left -= content[at + 4] if frame != 0xC2 else 0
        at += 2 + length
        if marker == 0xDA:
            while at < len(content) - 1:
                if content[at] == 0xFF and content[at + 1] != 0 and not 0xD0 <= content[at + 1] <= 0xD7:
                    break
                at += 1
            else:
                at = len(content)
    return has_scan and frame is not None and left >= 0 and content[at : at + 2] == b"\xff\xd9"


@fuzz(80)
@given(data=st.data())
def test_the_markers_are_those_of_a_walk_byte_by_byte(data):
    content = damaged(data, data.draw(st.sampled_from(JPEGS)))
    assert is_whole_jpeg(content) == walked(content)


def test_the_markers_of_whole_files():
    assert all(map(is_whole_jpeg, JPEGS))
    assert not any(is_whole_jpeg(each[:cut]) for each in JPEGS for cut in (0, 1, 2, 3, 20, len(each) // 2, -1))
