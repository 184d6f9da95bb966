"""Deliberately wrong loaders must fail the gate by name, the right one must pass with exactly 0."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as F

from dogs_accel.parity import measure
from dogs_accel.parity.gates import DECODED_BY_GPU, EXACT
from dogs_accel.parity.measure import ParityError, require_parity
from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN, Batch, make_loader
from pipelines.torchloader import TorchLoader
from tests.support.altered_loaders import RESAMPLED, SMALL, Reading, add_levels, altered, check, made_by

GATES = (EXACT, RESAMPLED, DECODED_BY_GPU)


@pytest.mark.parametrize("recipe", [SMALL, RESNET_TRAIN.at(64), VIT_TRAIN.at(64)], ids=lambda recipe: recipe.name)
def test_the_reference_equals_itself_exactly(paths, recipe):
    found = require_parity(paths, recipe, backend="torch", device="cpu", seed=3, epoch=2, num_threads=1)
    assert (found.mean, found.p999, found.max, found.share_differing) == (0, 0, 0, 0)
    assert found.passes
    assert found.complaint is None
    assert found.gate == EXACT
    assert (found.loader, found.recipe, found.num_images) == ("torch", recipe.name, len(paths))
    assert [sample.index for sample in found.worst] == [0, 1, 2, 3, 4, 5]
    assert str(found) == (
        f"loader torch, recipe {recipe.name}, 12 images: mean 0.0000, 99.9th percentile 0, largest 0 levels, "
        "0.0000% of values differ: passes (exact: largest <= 1, share of values that differ < 0.0001)"
    )


@pytest.mark.parametrize(("every", "passes"), [(5_000, False), (20_000, True)])
def test_single_levels_must_be_rarer_than_1_in_10_000(paths, every, passes):
    where = torch.arange(7, 3 * 224 * 224, every)
    found = altered(paths[:4], lambda batch: add_levels(batch, where, 1), EVAL)
    assert found.share_differing == len(where) / (3 * 224 * 224)
    assert (found.p999, found.max) == (0, 1)
    assert found.mean == found.share_differing
    assert found.passes is passes
    if not passes:
        complaint = "loader altered, recipe eval: share of values that differ is 0.0002059, expected < 0.0001"
        with pytest.raises(ParityError, match=complaint):
            found.require()


def test_one_value_two_levels_off_is_not_exact(paths):
    def alter(batch):
        return add_levels(batch, torch.tensor([5]), 2) if 3 in batch.index else batch

    with pytest.raises(ParityError, match=r"loader altered, recipe eval: largest is 2 levels, expected <= 1 \(gate ex"):
        altered(paths, alter).require()


def test_the_statistics_are_those_of_the_differences(paths):
    """Against numpy, on whole levels drawn at random, some of which nearly always and some of which rarely come."""
    random = np.random.default_rng(1)
    levels = random.choice([0, 1, 2, 40], p=[0.7, 0.25, 0.0485, 0.0015], size=3 * 64 * 64)

    def alter(batch):
        return add_levels(batch, torch.arange(len(levels)), torch.from_numpy(levels).float())

    found = altered(paths, alter)
    assert found.mean == pytest.approx(levels.mean())
    assert found.p999 == np.quantile(levels, 0.999, method="inverted_cdf")
    assert found.p999 == 40
    assert found.max == 40
    assert found.share_differing == (levels > 0).mean()
    assert altered(paths, lambda batch: add_levels(batch, torch.arange(12), 9)).p999 == 0
    assert altered(paths, lambda batch: add_levels(batch, torch.arange(13), 9)).p999 == 9


def test_half_a_level_is_a_difference_and_the_rounding_of_floats_is_none(paths):
    everything = torch.arange(3 * 64 * 64)
    found = altered(paths, lambda batch: add_levels(batch, everything, 0.5))
    assert (found.mean, found.max, found.share_differing) == (0.5, 0.5, 1)
    found = altered(paths, lambda batch: batch._replace(images=batch.images * (1 + 1e-7)))
    assert (found.mean, found.max, found.share_differing) == (0, 0, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_what_is_no_pixel_fails_every_gate(paths, value):
    def alter(batch):
        batch.images[:, :, :8] = value
        return batch

    found = altered(paths[:3], alter)
    assert found.p999 == found.max == 256
    assert not any(replace(found, gate=gate).passes for gate in GATES)
    assert found.worst[0].ours[0, 0].tolist() in ([0, 0, 0], [255, 255, 255])


def test_a_resize_without_antialias_fails_by_name(shared_data):
    photos = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::64]

    def read(path):
        image = F.pil_to_tensor(Image.open(path).convert("RGB"))
        return F.to_pil_image(F.resize(image, [73, 73], antialias=False))

    found = check(photos, make=made_by(Reading, read=read), gate=RESAMPLED)
    assert found.gate == RESAMPLED
    assert found.mean > 3
    for gate in GATES:
        with pytest.raises(ParityError, match=rf"loader reading, recipe eval: .*\(gate {gate.name}\)"):
            replace(found, gate=gate).require()


def test_a_turn_by_exif_fails_by_name(paths, tmp_path):
    for turned in (False, True):
        path = tmp_path / f"{turned}.jpg"
        exif = Image.Exif()
        exif[0x0112] = 6 if turned else 1
        Image.open(paths[0]).convert("RGB").save(path, exif=exif, quality=95)
    files = [tmp_path / "False.jpg", tmp_path / "True.jpg"]

    def read(path):
        return ImageOps.exif_transpose(Image.open(path)).convert("RGB").resize((73, 73), Image.Resampling.BILINEAR)

    found = check(files, make=made_by(Reading, read=read))
    with pytest.raises(ParityError, match="loader reading, recipe eval: largest is"):
        found.require()
    assert [(sample.index, sample.path) for sample in found.worst] == [(1, str(files[1])), (0, str(files[0]))]
    assert found.worst[1].max == 0
    assert (found.worst[0].ours != found.worst[0].reference).any()


def test_another_seed_or_epoch_of_a_training_recipe_fails(paths):
    def later(loader):
        class Later(loader):
            def set_epoch(self, epoch):
                super().set_epoch(epoch + 1)

        return Later

    with pytest.raises(ParityError, match="loader torch, recipe vit-train: largest is"):
        check(paths, VIT_TRAIN.at(64), make=made_by(later(TorchLoader))).require()


def test_images_are_paired_by_their_index_whatever_the_order(paths):
    def shuffled(*arguments, **settings):
        return make_loader(*arguments, **settings | {"shuffle": True, "batch_size": 3})

    for recipe in (SMALL, RESNET_TRAIN.at(64)):
        found = check(paths, recipe, make=shuffled)
        assert (found.num_images, found.max, found.share_differing) == (len(paths), 0, 0)


def test_images_are_let_go_as_they_are_paired(paths):
    """In one order nothing waits past the batch in hand, so a set of any size fits."""
    given = (paths, np.arange(len(paths)), SMALL)
    with make_loader(*given, backend="torch", device="cpu", batch_size=2) as ours, make_loader(
        *given, backend="torch", device="cpu", batch_size=2
    ) as theirs:  # fmt: skip
        pairs = measure._pairs(ours, theirs)
        indices = []
        for index, _, _ in pairs:
            indices.append(index)
            assert all(len(waiting) <= 2 for waiting in pairs.gi_frame.f_locals["waiting"])
    assert indices == list(range(len(paths)))


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda batch: batch._replace(index=batch.index.clamp(max=2)), "image 2 comes twice in an epoch"),
        (lambda batch: Batch(*(part[1:] for part in batch)), "no image 0 in the epoch"),
        (lambda batch: batch._replace(labels=batch.labels.flip(0)), "image 0 comes with the label of image 4"),
        (lambda batch: batch._replace(images=batch.images[..., :60]), r"image 0 is \(3, 64, 60\) .*, expected \(3, 64"),
        (lambda batch: batch._replace(images=batch.images.half()), r"image 0 is .* torch.float16, expected .*float32"),
    ],
)
def test_what_cannot_be_paired_is_named(paths, alter, message):
    with pytest.raises(ParityError, match=f"loader altered, recipe eval: {message}"):
        altered(paths, alter)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"paths": []}, "paths: got none, expected at least one image file"),
        ({"num_worst": -1}, "num_worst: got -1, expected an integer >= 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"backend": "troch"}, "backend: got 'troch'"),
    ],
)
def test_what_cannot_be_is_refused(paths, settings, message):
    with pytest.raises(ValueError, match=message):
        check(**{"paths": paths} | settings)
