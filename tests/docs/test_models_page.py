"""docs/models.md: its counts are those of the models, its fields those of the names."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from bench.write_docs import ROOT
from dogs_accel.models.freezing import count_total_params
from dogs_accel.models.heads import with_new_head
from dogs_accel.models.names import Cnn5Options, HeadOptions, VitOptions, parse_model_name
from dogs_accel.models.networks.cnn5 import cnn5_flops, cnn5_params
from dogs_accel.models.networks.vit import vit_params

TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def rows(first_cell):
    """Cells of the rows below the header that begins with a cell, without backquotes."""
    table = TEXT.split(f"\n| {first_cell} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in table]


def number(cell):
    return int(cell.replace(",", ""))


def test_the_counts_of_cnn5():
    for growth, filters, dense, params, flops in rows("`growth` | `filters`"):
        options = Cnn5Options(filters=(int(filters),), growth=growth, dense=int(dense))
        assert (cnn5_params(options, 10, 224), cnn5_flops(options, 10, 224)) == (number(params), number(flops))
    assert len(rows("`growth` | `filters`")) == 9


def test_the_counts_of_vit():
    for name, classes, size, params in rows("name | classes"):
        assert vit_params(parse_model_name(name.split()[0]).network, number(classes), int(size)) == number(params)


def test_the_counts_of_heads():
    for typed, *counts in rows("head | 10 classes"):
        options = parse_model_name(f"resnet50:{typed if '=' in typed else f'head={typed}'}").head
        for num_classes, count in zip((10, 37, 120), counts, strict=True):
            with torch.device("meta"):
                model = nn.ModuleDict({"fc": nn.Linear(2048, 1000)})
                assert count_total_params(with_new_head(model, num_classes, options)) == number(count)


@pytest.mark.parametrize("kind", [HeadOptions, Cnn5Options, VitOptions])
def test_every_field_has_a_row(kind):
    named = {cell for line in TEXT.splitlines() for cell in re.findall(r"^\| `(\w+)` \|", line)}
    assert {field.name for field in dataclasses.fields(kind)} <= named
