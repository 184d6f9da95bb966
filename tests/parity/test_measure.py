"""Deliberately wrong loaders must fail the gate by name, the right one must pass with exactly 0."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as F

from dogs_accel.cli import main
from dogs_accel.datasets import open_dataset
from dogs_accel.datasets.photos import spread
from dogs_accel.models.build import build_model, build_pretrained
from dogs_accel.models.specs import model_spec
from dogs_accel.parity import measure, run
from dogs_accel.parity.answers import compare_logits, loader_logits
from dogs_accel.parity.gates import DECODED_BY_GPU, EXACT, Gate, Limit, gate_for
from dogs_accel.parity.measure import Parity, ParityError, check_parity, require_parity
from dogs_accel.parity.run import _maker, amplification, parity_figure
from pipelines import EVAL, RESNET_TRAIN, VIT_TRAIN, Batch, Loader, make_loader
from pipelines.torchloader import TorchLoader

SMALL = EVAL.at(64)
RESAMPLED = Gate("another resampling", (Limit("p999", "<=", 3),))
GATES = (EXACT, RESAMPLED, DECODED_BY_GPU)
IMPOSSIBLE = Gate("impossible", (Limit("max", "<", 0),))


@pytest.fixture(scope="module")
def paths(dogs_root):
    return open_dataset(dogs_root).paths[::6]


class Altered(TorchLoader):
    """The reference, but for what `alter` does to a batch."""

    backend = "altered"

    def __init__(self, *arguments, alter, **settings):
        super().__init__(*arguments, **settings)
        self.alter = alter

    def _batches(self, epoch, chunks):
        return map(self.alter, super()._batches(epoch, chunks))


class Reading(Loader):
    """Centre crops of what `read` makes of a file, a PIL image of 73 x 73 px, which is what the recipe SMALL has."""

    backend = "reading"

    def __init__(self, *arguments, read, **settings):
        super().__init__(*arguments, **settings)
        self.read = read

    def _batches(self, epoch, chunks):
        recipe = self.recipe
        for index in chunks:
            tensors = [F.to_tensor(F.center_crop(self.read(self.paths[i]), recipe.crop)) for i in index]
            images = torch.stack([F.normalize(tensor, recipe.mean, recipe.std) for tensor in tensors])
            yield Batch(images, self.labels[index], torch.from_numpy(index))


def made_by(loader, **more):
    """What `make` may be: gives a loader of this class, whatever backend is asked for."""

    def make(paths, labels, recipe, *, backend, device, **settings):
        settings = {"seed": 0, "rank": 0, "world_size": 1, "dtype": torch.float32} | settings
        return loader(paths, labels, recipe, device=torch.device(device), **settings, **more)

    return make


def check(paths, recipe=SMALL, **settings):
    return check_parity(
        paths, recipe, **{"backend": "torch", "device": "cpu", "batch_size": 5, "num_threads": 1} | settings
    )


def altered(paths, alter, recipe=SMALL, **settings):
    return check(paths, recipe, make=made_by(Altered, alter=alter), **settings)


def add_levels(batch, flat_index, levels):
    """Add levels to values of each image, by their place in (3, H, W)."""
    images = batch.images.contiguous().flatten(1)
    std = torch.tensor(SMALL.std).repeat_interleave(images.shape[1] // 3)
    images[:, flat_index] += levels / 255 / std[flat_index]
    return batch._replace(images=images.reshape(batch.images.shape))


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


def test_each_way_of_making_pixels_has_its_gate():
    for device in ("cpu", "cuda:0"):
        assert gate_for("cached", torch.device(device)) == EXACT
    assert gate_for("dali", torch.device("cpu")) == EXACT
    assert gate_for("dali", torch.device("cuda:0")) == DECODED_BY_GPU


@pytest.mark.parametrize(
    ("gate", "numbers", "passes"),
    [
        (EXACT, {"max": 1, "share_differing": 0.00009}, True),
        (EXACT, {"max": 1, "share_differing": 0.0001}, False),
        (EXACT, {"max": 2, "share_differing": 0.00001}, False),
        (RESAMPLED, {"p999": 3, "max": 250, "share_differing": 0.3}, True),
        (RESAMPLED, {"p999": 3.015625}, False),
        (DECODED_BY_GPU, {"mean": 0.99, "p999": 7}, True),
        (DECODED_BY_GPU, {"mean": 1, "p999": 7}, False),
        (DECODED_BY_GPU, {"mean": 0.5, "p999": 8}, False),
        (DECODED_BY_GPU, {"mean": float("nan"), "p999": 1}, False),
    ],
)
def test_the_limits_of_the_gates(gate, numbers, passes):
    assert measured(gate=gate, **numbers).passes is passes


def measured(**numbers):
    numbers = {"mean": 0, "p999": 0, "max": 0, "share_differing": 0, "worst": (), "gate": EXACT} | numbers
    return Parity(loader="x", recipe="eval", device="cpu", seed=0, epoch=0, num_images=1, **numbers)


# ---- what a model says


def test_a_change_of_logits_is_measured():
    theirs = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 5], [2, 1, 0]], dtype=np.float32)
    ours = theirs.copy()
    ours[1] = [0, 2, 3]
    found = compare_logits(ours, theirs, loader="x", model="m")
    assert found.top1_agreement == 0.75
    assert found.mean_change == pytest.approx(2 / 12)
    assert found.max_change == 2
    assert found.logit_std == pytest.approx(theirs.std())
    assert not found.passes
    with pytest.raises(ParityError, match=r"loader x, model m: share of photos .* is 0\.75, expected >= 0\.995"):
        found.require()
    assert compare_logits(theirs, theirs, loader="x").require().max_change == 0
    with pytest.raises(ValueError, match=r"logits: got shapes \(3, 3\) and \(4, 3\)"):
        compare_logits(ours[:3], theirs, loader="x")


def test_a_real_model_sees_the_loss_of_antialiasing(shared_data):
    weights = shared_data / "weights" / "tf_efficientnet_lite0.pth"
    spec = model_spec("timm/tf_efficientnet_lite0")
    built = build_pretrained(spec, str(weights))
    assert built.model.classifier.out_features == 1000
    assert "without the head" not in built.note
    photos = sorted((shared_data / "stanford-dogs-mini" / "Images").rglob("*.jpg"))[::64]
    recipe = EVAL.at(spec.image_size, spec.mean, spec.std)

    def read(path):
        image = F.pil_to_tensor(Image.open(path).convert("RGB"))
        return F.to_pil_image(F.resize(image, list(recipe.resize), antialias=False))

    ask = partial(loader_logits, built.model, photos, recipe, backend="torch", device="cpu", num_threads=2)
    theirs, again = ask(), ask(make=lambda *given, **settings: make_loader(*given, **settings | {"shuffle": True}))
    assert theirs.shape == (len(photos), 1000)
    np.testing.assert_allclose(again, theirs, atol=1e-4)
    worse = compare_logits(ask(make=made_by(Reading, read=read)), theirs, loader="reading")
    assert 10 * compare_logits(again, theirs, loader="torch").max_change < worse.mean_change
    assert worse.max_change > 0.1 * worse.logit_std


def test_a_loader_that_leaves_a_photo_out_gets_no_logits(paths):
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    alter = {"alter": lambda batch: Batch(*(part[1:] for part in batch))}
    with pytest.raises(ParityError, match="expected each of 12 images once"):
        loader_logits(model, paths, SMALL, backend="x", device="cpu", num_threads=1, make=made_by(Altered, **alter))


# ---- the report


@pytest.mark.parametrize(("levels", "factor"), [(0, 128), (1, 128), (2, 64), (3, 64), (42, 4), (128, 1), (255, 1)])
def test_differences_are_amplified_as_far_as_they_can_be_drawn(levels, factor):
    assert amplification(levels) == factor


def test_the_figure_shows_both_images_and_their_amplified_difference(paths):
    where = torch.arange(0, 3 * 64 * 64, 5)
    found = altered(paths, lambda batch: add_levels(batch, where, 3.0 * (batch.index[:, None] + 1)), num_worst=2)
    assert [sample.index for sample in found.worst] == [11, 10]
    figure = parity_figure(found)
    assert len(figure.axes) == 6
    reference, ours, difference = (axes.images[0].get_array().astype(int) for axes in figure.axes[:3])
    np.testing.assert_array_equal(reference, found.worst[0].reference)
    np.testing.assert_array_equal(np.minimum(np.abs(ours - reference) * 4, 255), difference)
    assert figure.axes[2].get_title() == "difference x 4"
    assert figure.axes[0].get_ylabel().splitlines() == [Path(paths[11]).name, "mean 7.2012", "max 36 levels"]
    assert "here the 2 that differ most" in figure.get_suptitle()


def test_the_figure_of_equal_images_says_so(paths):
    found = check(paths, num_worst=3)
    assert "every pixel is the same in all of them; here are the first 3" in parity_figure(found).get_suptitle()
    with pytest.raises(ValueError, match="got no images to draw"):
        parity_figure(check(paths[:2], num_worst=0))


def test_images_are_picked_evenly():
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 512) == [0, 1, 2]
    assert spread("ab", 1) == ["a"]


def test_recipes_that_resize_alike_share_a_store(tmp_path):
    def store(recipe):
        return _maker("cached", recipe, tmp_path).keywords["store_dir"]

    assert store(EVAL) == store(RESNET_TRAIN) == tmp_path / "256x256-bilinear"
    assert len({store(EVAL), store(EVAL.at(100)), store(replace(EVAL, interpolation="bicubic"))}) == 3
    assert _maker("dali", EVAL, tmp_path) is make_loader


# ---- the command


@pytest.fixture
def command(dogs_root, tmp_path, monkeypatch):
    """Arguments that fit the small dataset, and gates that do not depend on how the loaders resize."""
    monkeypatch.setattr(measure, "gate_for", lambda backend, device: RESAMPLED)
    weights = tmp_path / "weights.pth"
    torch.save(build_model(model_spec("resnet18"), 7, "none").model.state_dict(), weights)
    return ["parity", "--data", str(dogs_root), "--num-images", "10", "--device", "cpu", "--model", "resnet18",
            "--weights", str(weights), "--out", str(tmp_path / "out")]  # fmt: skip


def stopped(arguments):
    """The exit code of a command that does not end well."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_the_command_compares_all_recipes_and_a_model(command, tmp_path, capsys):
    assert main([*command, "--loader", "dali"]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert [(row["loader"], row["recipe"]) for row in written["pixels"]] == [
        ("dali", "eval"), ("dali", "resnet-train"), ("dali", "vit-train"),
    ]  # fmt: skip
    for row in written["pixels"]:
        assert row["passes"]
        assert row["num_images"] == 10
        assert row["gate"] == {"name": "another resampling", "limits": ["99.9th percentile <= 3"]}
        assert len(row["worst"]) == 6
        assert row["worst"][0]["mean"] == max(sample["mean"] for sample in row["worst"])
        figure = tmp_path / "out" / f"parity_dali_{row['recipe']}.png"
        assert Image.open(figure).width > 800
        assert f"  {figure}\n" in printed
        assert f"dali     {row['recipe']:<13}     10  {row['mean']:>7.4f}" in printed
    [answers] = written["models"]
    assert answers["top1_agreement"] == 1
    assert answers["model"] == "ResNet-18"
    assert written["problems"] == []
    assert written["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert "not dogs" in printed.splitlines()[0]


def test_a_loader_that_fails_ends_in_exit_code_1(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "gate_for", lambda backend, device: IMPOSSIBLE)
    assert stopped([*command, "--loader", "dali", "--recipe", "eval"]) == 1
    printed = capsys.readouterr()
    assert "FAIL  impossible: largest < 0" in printed.out
    [line] = printed.err.splitlines()
    assert line.startswith("dogs-accel parity: FAILED: loader dali, recipe eval: largest is ")
    assert line.endswith(" levels, expected < 0 (gate impossible)")
    [problem] = json.loads((tmp_path / "out" / "parity.json").read_text())["problems"]
    assert line == f"dogs-accel parity: FAILED: {problem}"


def test_images_that_cannot_be_paired_end_in_exit_code_1(command, monkeypatch, capsys):
    def refuse(*arguments, **settings):
        raise ParityError("loader dali, recipe eval: image 2 comes twice in an epoch")

    monkeypatch.setattr(run, "check_parity", refuse)
    monkeypatch.setattr(run, "compare_logits", refuse)
    assert stopped([*command, "--loader", "dali", "--recipe", "eval"]) == 1
    printed = capsys.readouterr()
    assert "dali     eval          FAIL  loader dali, recipe eval: image 2 comes twice" in printed.out
    assert "\nFAIL  loader dali, recipe eval: image 2 comes twice" in printed.out
    assert printed.err.count("image 2 comes twice in an epoch") == 2


def test_without_weights_the_model_is_left_out_and_the_command_says_so(command, tmp_path, monkeypatch, capsys):
    def refuse(spec, weights):
        assert weights == "imagenet"
        raise OSError("weights: cannot download the ImageNet weights of resnet18 (no network)")

    monkeypatch.setattr(run, "build_pretrained", refuse)
    arguments = [part for part in command if part != "--weights" and not part.endswith("weights.pth")]
    assert main([*arguments, "--loader", "dali", "--recipe", "eval"]) == 0
    said = "no model was asked: weights: cannot download the ImageNet weights of resnet18 (no network)"
    assert said in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert written["models"] == []
    assert written["notes"][0].startswith(said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loader", "torch"], "loader: got 'torch', expected one of dali"),
        (["--recipe", "train"], "recipe: got 'train', expected one of eval, resnet-train, vit-train, or all"),
        (["--num-images", "0"], "--num-images: got '0', expected an integer >= 1"),
        (["--weights", "none"], "weights: got none, expected imagenet or a file"),
        (["--weights", "/nowhere.pth"], "weights: no file '/nowhere.pth'"),
        (["--device", "tpu"], "device: got 'tpu', expected cpu, cuda or cuda:N"),
        (["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_flag_is_one_line(command, tmp_path, arguments, message, capsys):
    assert stopped([*command, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_bad_file_is_named(command, dogs_root, tmp_path, capsys):
    root = tmp_path / "dogs"
    shutil.copytree(dogs_root, root)
    bad = open_dataset(root).paths[0]
    Path(bad).write_bytes(b"no picture")
    assert stopped([*command, "--data", str(root), "--recipe", "eval"]) == 2
    assert f"{bad}: not an image" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_loaders_are_exact_on_real_photos(shared_data, tmp_path, capsys):
    root = shared_data / "stanford-dogs-mini"
    weights = shared_data / "weights" / "tf_efficientnet_lite0.pth"
    arguments = ["--num-images", "64", "--device", "cpu", "--model", "timm/tf_efficientnet_lite0"]
    paths = ["--data", str(root), "--weights", str(weights), "--out", str(tmp_path)]
    assert main(["parity", *arguments, *paths]) == 0, capsys.readouterr()
    written = json.loads((tmp_path / "parity.json").read_text())
    assert [row["num_images"] for row in written["pixels"]] == [64] * 3 * len(run.LOADERS)
    assert all(row["max"] <= 1 and row["share_differing"] < 1e-4 for row in written["pixels"])
    assert all(row["gate"]["name"] == "exact" and row["passes"] for row in written["pixels"])
    assert [row["loader"] for row in written["models"]] == list(run.LOADERS)
    assert all(row["top1_agreement"] == 1 for row in written["models"])
