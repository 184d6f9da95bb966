"""Annotations that were made to harm, and made up ones: boxes, or one line that says why there are none."""

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogs_accel.datasets import DatasetError
from dogs_accel.datasets.dataset import MOST_ANNOTATION_BYTES, read_boxes
from tests.support.fuzzing import fuzz, value_or_line

BOX = "<object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>"


def with_entities(declared: str, used: str) -> str:
    return f"<!DOCTYPE a [{declared}]><annotation>{BOX.replace('30', used)}</annotation>"


LAUGHS = '<!ENTITY l0 "9">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))


@pytest.mark.fault(
    "Lists and annotations",
    "an annotation with an entity bomb, an external entity, a million tags or gigabytes",
    "it is named once with the reason and the image is scored without a box; nothing is fetched",
)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_entities(LAUGHS, "&l11;"), "it declares the entity l0, expected none"),
        (with_entities('<!ENTITY b SYSTEM "file:///etc/hostname">', "&b;"), "it declares the entity b, expected none"),
        (with_entities('<!ENTITY % b SYSTEM "http://127.0.0.1:9/x">%b;', "3"), "it declares the entity b, expected"),
        ("<annotation>" + "<a>" * (MOST_ANNOTATION_BYTES // 3 - 8), "no element found"),
        (f"<annotation>{' ' * MOST_ANNOTATION_BYTES}{BOX}</annotation>", "it has more than 1,048,576 bytes"),
        (f"<annotation>{BOX.replace('30', '1e300')}</annotation>", "got a box of xmin 1, ymin 2, xmax 1e300, ymax 40"),
        (f"<annotation>{BOX.replace('30', '9' * 5000)}</annotation>", "got a box of xmin 1, ymin 2, xmax 999"),
    ],
    ids=["laughs", "file", "parameter", "deep", "huge", "infinite", "digits"],
)
def test_a_hostile_annotation_is_refused_in_bounded_memory(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "n1_1"
    path.write_text(content)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=f"n1_1: not a readable annotation .*{reason}") as caught:
            read_boxes(path)
        assert tracemalloc.get_traced_memory()[1] < 200 * MOST_ANNOTATION_BYTES
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_tags_within_tags_are_no_obstacle(tmp_path: Path) -> None:
    depth = MOST_ANNOTATION_BYTES // 8
    (tmp_path / "n1_1").write_text(f"<annotation>{BOX}{'<a>' * depth}{'</a>' * depth}</annotation>")
    assert read_boxes(tmp_path / "n1_1") == [(1, 2, 30, 40)]


def test_a_type_of_document_elsewhere_is_not_fetched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # whoever opened it would wait for ever
    (tmp_path / "n1_1").write_text(f'<!DOCTYPE a SYSTEM "{tmp_path}/pipe"><annotation>{BOX}</annotation>')
    assert read_boxes(tmp_path / "n1_1") == [(1, 2, 30, 40)]


SIDES = ("xmin", "ymin", "xmax", "ymax")
sides = (
    st.integers(-5, 500).map(str)
    | st.sampled_from(["inf", "nan", "", "1e9", " 7 ", "1_0", "٣"])
    | st.text("0&;<e", max_size=3)
)
tags = st.recursive(
    sides,
    lambda inner: st.lists(
        st.tuples(st.sampled_from([*SIDES, "object", "bndbox", "annotation"]), inner), max_size=5
    ).map(lambda pairs: "".join(f"<{tag}>{text}</{tag}>" for tag, text in pairs)),
    max_leaves=12,
)  # fmt: skip
documents = st.one_of(
    st.binary(max_size=80),
    tags.map(lambda text: f"<annotation>{text}</annotation>".encode()),
    st.tuples(*[sides] * 4).map(
        lambda values: (
            "<annotation><object><bndbox>"
            + "".join(f"<{side}>{value}</{side}>" for side, value in zip(SIDES, values, strict=True))
            + "</bndbox></object></annotation>"
        ).encode()
    ),
    st.tuples(st.sampled_from(["utf-16", "utf-7", "hex", "idna", "latin-1", "cp037", "klingon"]), st.booleans()).map(
        lambda drawn: f"<?xml version='1.0' encoding='{drawn[0]}'?><annotation>{BOX}</annotation>".encode(
            "utf-16" if drawn[1] else "ascii"
        )
    ),
)


@fuzz(60)
@given(content=documents)
def test_whatever_an_annotation_holds_gives_boxes_or_one_line(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "annotation"
    path.write_bytes(content)
    boxes, line = value_or_line(lambda: read_boxes(path, (300, 200)))
    if boxes is None:
        assert line.startswith(f"{path}: not a readable annotation (")
    else:
        assert all(xmin < xmax and ymin < ymax and xmin < 300 and ymin < 200 for xmin, ymin, xmax, ymax in boxes)
