"""Names with fields: read in any order, written in one, and refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogs_accel.models.names import Cnn5Options, HeadOptions, ModelName, NoOptions, VitOptions, parse_model_name
from tests.support.fuzzing import fuzz, value_or_line


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("resnet50", "resnet50"),
        ("timm/mixer_b16_224", "timm/mixer_b16_224"),
        ("vgg16:head=mlp", "vgg16:head=mlp"),
        ("vgg16:head_dropout=0.3:head=0256", "vgg16:head=256:head_dropout=0.3"),
        ("vgg16:head=mlp:head_dropout=.5", "vgg16:head=mlp"),  # which it has anyway
        ("vgg16:head=custom:head_dropout=0", "vgg16:head=custom:head_dropout=0.0"),
        ("resnet50:head=linear:head_dropout=0", "resnet50"),
        ("cnn5:activation=mish:growth=double:filters=64", "cnn5:filters=64:growth=double:activation=mish"),
        ("cnn5:kernel=7+5+3+3+3:filters=32", "cnn5:kernel=7+5+3+3+3"),
        ("vit:heads=8:patch=4:depth=6:dim=256:mlp=4", "vit:patch=4:dim=256:depth=6:heads=8"),
        ("resnet18_cifar:head=mlp", "resnet18_cifar:head=mlp"),
    ],
)
def test_a_name_is_written_in_one_way(typed, written):
    assert str(parse_model_name(typed)) == written
    assert parse_model_name(written) == parse_model_name(typed)


def test_the_values_of_a_name():
    name = parse_model_name("cnn5:filters=32+48+64+64+96:norm=batch:dropout=0.3:head=1024+512")
    assert name == ModelName(
        "cnn5",
        HeadOptions(head=(1024, 512)),
        Cnn5Options(filters=(32, 48, 64, 64, 96), norm="batch", dropout=0.3),
    )
    assert parse_model_name("timm/vit_tiny_patch16_224").network == NoOptions()
    assert parse_model_name("vit:dim=192:heads=3").network == VitOptions(dim=192, heads=3)
    assert [Cnn5Options(filters=(32,), growth=growth).block_filters for growth in ("same", "double", "half")] == [
        (32, 32, 32, 32, 32), (32, 64, 128, 256, 512), (32, 16, 8, 4, 2),
    ]  # fmt: skip
    heads = [parse_model_name(f"resnet50:head={head}").head for head in ("linear", "mlp", "custom", "256")]
    assert [(head.widths, head.dropout) for head in heads] == [
        ((), 0.0), ((512,), 0.5), ((1024, 512), 0.3), ((256,), 0.0)
    ]  # fmt: skip


@pytest.mark.fault(
    "Command line",
    "a model's name with a field or a value that it cannot have",
    "one line with what it can have, and the nearest",
)
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("cnn5:filter=32", "models: cnn5 has no field 'filter', expected one of filters, growth, kernel, activation, "
         "norm, dense, dense_activation, dropout, head, head_dropout (did you mean 'filters'?)"),
        ("resnet50:filters=32", "models: resnet50 has no field 'filters', expected one of head, head_dropout"),
        ("resnet50:mlp", "models: got 'mlp' in 'resnet50:mlp', expected FIELD=VALUE such as head=mlp"),
        ("resnet50:", "models: got '' in 'resnet50:', expected FIELD=VALUE such as head=mlp"),
        ("vgg16:head=mlp:head=mlp", "models: got head twice in 'vgg16:head=mlp:head=mlp', expected each field once"),
        ("resnet50:head=mpl", "models: head of resnet50: got 'mpl', expected linear, mlp, custom or the widths of "
         "hidden layers such as 1024+512 (did you mean 'mlp'?)"),
        ("cnn5:kernel=4", "models: kernel of cnn5: got '4', expected odd integers, since with a padding of half of it "
         "an even kernel changes the size of the map"),
        ("cnn5:kernel=33", "models: kernel of cnn5: got '33', expected at most 31 px"),
        ("cnn5:activation=gulu", "models: activation of cnn5: got 'gulu', expected one of relu, gelu, silu, mish, "
         "leaky_relu (did you mean 'gelu'?)"),
        ("cnn5:dense=0", "models: dense of cnn5: got '0', expected an integer from 1 to 1,000,000"),
        ("cnn5:dropout=1", "models: dropout of cnn5: got '1', expected a number from 0 to 1, 1 excluded"),
        ("cnn5:dropout=nan", "models: dropout of cnn5: got 'nan', expected a number from 0 to 1, 1 excluded"),
        ("cnn5:filters=32+48", "models: cnn5: filters: got 32+48, expected 1 or 5 numbers"),
        ("cnn5:filters=1+2+3+4+5:growth=half", "models: cnn5: growth: got half with filters=1+2+3+4+5, expected one "
         "number"),
        ("cnn5:filters=15:growth=half", "models: cnn5: filters: got 15 with growth=half, expected 16 or more"),
        ("cnn5:filters=99999:growth=double", "models: cnn5: filters: got 99999 with growth=double, expected at most "
         "62,500"),
        ("vit:dim=100", "models: vit: heads: got 12 with dim=100, expected a divisor of dim"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(typed, message):
    with pytest.raises(ValueError, match=r"^models: ") as refused:
        parse_model_name(typed)
    assert str(refused.value) == message


@fuzz(100)
@given(st.text(alphabet="cn5vit:=+.0123hed_aropul ,", max_size=40).map("cnn5:".__add__))
def test_any_text_is_read_or_refused_in_one_line(text):
    name, line = value_or_line(lambda: parse_model_name(text))
    if name is None:
        assert line.startswith("models: ")
    else:
        assert parse_model_name(str(name)) == name
