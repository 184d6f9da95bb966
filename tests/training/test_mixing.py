"""Mixup and CutMix against torchvision's own for the same draws, and what a step, an epoch and a run make of them."""

import collections
import functools
import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch._dynamo.utils import counters
from torchvision.transforms import v2

from dogs_accel.evaluation.scores import ScoreCounter
from dogs_accel.training import mixing
from dogs_accel.training import step as step_module
from dogs_accel.training.mixing import MixDraw, Mixed, Mixer, cut_box, draw_mix, mix_images
from dogs_accel.training.optimizers import make_optimizer
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import StepSettings, TrainingStep

CPU = torch.device("cpu")
PLAIN = StepSettings(channels_last=False, fused_optimizer=False)


def phase(mix="mixup", **how):
    return Phase(name="tune", mode="full_finetune", epochs=1, lr=1e-3, mix=mix, **how)


def drawn(mix="mixup", *, step=0, epoch=0, seed=1, num_images=8, height=17, width=23, **how):
    return draw_mix(
        phase(mix, **how), seed=seed, epoch=epoch, step=step, num_images=num_images, height=height, width=width
    )


def rolled(num_images):
    """The permutation that torchvision has."""
    return np.roll(np.arange(num_images), 1)


class Drawn:
    """What stands for a distribution, and gives what was drawn already."""

    def __init__(self, value):
        self.value = value

    def sample(self, _):
        return torch.tensor([self.value], dtype=torch.float64)


def torchvisions(kind, monkeypatch, images, labels, lam, centre=(0, 0), num_classes=5):
    """What torchvision makes of a batch for a lambda and the centre (x, y) of a box: images, and labels (B, C)."""
    transform = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind](num_classes=num_classes)
    transform._dist = Drawn(lam)
    values = iter(centre)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", lambda *_, **__: torch.tensor([next(values)]))
        return transform(images.clone(), labels)


def weighted(labels, mixed, num_classes=5):
    """Both labels of a batch as one distribution (B, C) a row."""
    lam = mixed.lam.double()
    one_hot = functools.partial(nn.functional.one_hot, num_classes=num_classes)
    return lam * one_hot(labels) + (1 - lam) * one_hot(mixed.labels)


LAYOUTS = {
    "contiguous": lambda images: images.contiguous(),
    "channels-last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "strided": lambda images: images.repeat_interleave(2, dim=3)[..., ::2],
}


@pytest.mark.parametrize("num_images", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_batch_is_mixed_as_torchvision_does_to_the_bit(monkeypatch, kind, layout, dtype, num_images):
    torch.manual_seed(0)
    images = LAYOUTS[layout](torch.randn(num_images, 3, 7, 11).to(dtype))
    labels = torch.randint(5, (num_images,))
    for lam, centre in itertools.product((0.0, 0.3, 0.55, 0.9, 1.0), ((0, 0), (5, 3), (10, 6))):
        expected, expected_labels = torchvisions(kind, monkeypatch, images, labels, lam, centre)
        box, share = None, lam
        if kind == "cutmix":
            box = cut_box(lam, *centre, height=7, width=11)
            share = 1 - (box[2] - box[0]) * (box[3] - box[1]) / 77
        mine, strides = images.clone(), images.clone().stride()
        mix_images(mine, MixDraw(lam=share, permutation=rolled(num_images), box=box))
        assert torch.equal(mine, expected)
        assert (mine.dtype, mine.stride()) == (dtype, strides)
        mixed = Mixed(labels[rolled(num_images)], torch.tensor(share))
        torch.testing.assert_close(weighted(labels, mixed).float(), expected_labels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_each_image_is_mixed_with_the_one_that_the_permutation_names(monkeypatch, kind):
    images, labels = torch.randn(6, 3, 17, 23), torch.arange(6) % 5
    for step in range(12):
        draw = drawn(kind, step=step, num_images=6)
        mine = images.clone()
        mixed = Mixer(phase(kind), seed=1, epoch=0)(step, mine, labels)
        assert mixed.labels.tolist() == labels[draw.permutation].tolist()
        assert mixed.lam.item() == pytest.approx(draw.lam)
        for row, other in enumerate(draw.permutation):
            # torchvision mixes the second of a pair with the first.
            pair = torch.stack([images[other], images[row]])
            if draw.box is None:
                expected = torchvisions(kind, monkeypatch, pair, labels[:2], draw.lam)[0][1]
            else:
                expected, (left, top, right, bottom) = images[row].clone(), draw.box
                expected[:, top:bottom, left:right] = images[other][:, top:bottom, left:right]
            assert torch.equal(mine[row], expected)


@pytest.fixture
def centres(monkeypatch):
    """Lambda and the centre of each box that is cut, before lambda follows the box."""
    given = []
    monkeypatch.setattr(
        mixing, "cut_box", lambda lam, x, y, **size: given.append((lam, x, y)) or cut_box(lam, x, y, **size)
    )
    return given


def test_a_drawn_box_is_torchvisions_and_lambda_is_what_it_leaves(monkeypatch, centres):
    images, labels = torch.rand(8, 3, 17, 23), torch.arange(8) % 5
    for step in range(40):
        draw = drawn("cutmix", step=step)
        left, top, right, bottom = draw.box
        assert draw.lam == 1 - (right - left) * (bottom - top) / (17 * 23)
        lam, *centre = centres[-1]
        expected, expected_labels = torchvisions("cutmix", monkeypatch, images, labels, lam, centre)
        mine = images.clone()
        mix_images(mine, MixDraw(lam=draw.lam, permutation=rolled(8), box=draw.box))
        assert torch.equal(mine, expected)
        mixed = Mixed(labels[rolled(8)], torch.tensor(draw.lam))
        torch.testing.assert_close(weighted(labels, mixed).float(), expected_labels, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "alpha"), [("mixup", 0.2), ("mixup", 1.0), ("cutmix", 1.0), ("cutmix", 0.5)])
def test_lambda_is_beta_and_the_centre_uniform(centres, kind, alpha):
    draws = [drawn(kind, step=step, num_images=2, height=64, width=64, **{f"{kind}_alpha": alpha})
             for step in range(2000)]  # fmt: skip
    lams = [draw.lam for draw in draws] if kind == "mixup" else [lam for lam, _, _ in centres]
    assert stats.kstest(lams, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    for places in zip(*[each[1:] for each in centres], strict=True):
        assert stats.chisquare(np.bincount(places, minlength=64)).pvalue > 1e-3


def test_either_is_as_likely_and_a_probability_leaves_steps_out():
    draws = [drawn("mixup_or_cutmix", step=step, mix_probability=0.6, mixup_alpha=1.0) for step in range(2000)]
    kinds = collections.Counter(
        "none" if draw.lam == 1 and draw.box is None else "mixup" if draw.box is None else "cutmix" for draw in draws
    )
    assert stats.chisquare([kinds[kind] for kind in ("none", "mixup", "cutmix")], [800, 600, 600]).pvalue > 1e-3
    assert {drawn("mixup_or_cutmix", step=step).lam < 1 for step in range(100)} == {True}


def test_what_is_drawn_depends_on_seed_epoch_and_step_alone():
    def key(draw):
        return draw.lam, draw.permutation.tolist(), draw.box

    made = {which: key(drawn("mixup_or_cutmix", seed=which[0], epoch=which[1], step=which[2]))
            for which in itertools.product((0, 1, 2**64 - 1), (0, 1), (0, 1, 2))}  # fmt: skip
    assert len({str(value) for value in made.values()}) == len(made)
    state, torchs = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    for which in reversed(made):
        assert made[which] == key(drawn("mixup_or_cutmix", seed=which[0], epoch=which[1], step=which[2]))
    assert (np.random.get_state()[1] == state).all()
    assert torch.equal(torch.random.get_rng_state(), torchs)
    # Processes with shares of other sizes agree on all but the permutation.
    one, other = (drawn("mixup_or_cutmix", num_images=num) for num in (4, 3))
    assert (one.lam, one.box) == (other.lam, other.box)
    assert sorted(other.permutation) == [0, 1, 2]


def test_one_image_and_one_that_is_repeated_stay_as_they_are():
    mixer = Mixer(phase("mixup", mixup_alpha=5.0), seed=0, epoch=0)
    for images in (torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4).expand(2, 3, 4, 4)):
        before, labels = images.clone(), torch.full((len(images),), 3)
        mixed = mixer(0, images, labels)
        assert torch.equal(images, before)
        assert (mixed.labels.tolist(), mixed.lam.item()) == (labels.tolist(), 1.0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3 * 8 * 8, 5)

    def forward(self, images):
        return self.fc(images.flatten(1))


def make_step(settings=PLAIN, **how):
    model = Net()
    optimizer = make_optimizer(model.parameters(), 1e-2, 0.0, settings)
    return model, TrainingStep(model, optimizer, device=CPU, settings=settings, **how)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_weighted_one_and_its_gradient_that_of_weighted_labels(smoothing):
    loss = functools.partial(nn.functional.cross_entropy, label_smoothing=smoothing)
    images, labels, others = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]), torch.tensor([3, 1, 0, 4])
    model, step = make_step(loss=loss)
    expected_model = Net()
    value, logits = step(images, labels, 1.0, Mixed(others, torch.tensor(0.3)))
    # The cross-entropy of torch's own for soft labels, and its gradient.
    soft = weighted(labels, Mixed(others, torch.tensor(0.3))).float()
    expected = loss(expected_model(images), soft)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(logits, expected_model(images).detach())
    torch.testing.assert_close(model.fc.weight.grad, expected_model.fc.weight.grad, rtol=1e-4, atol=1e-6)


def test_a_step_is_compiled_once_whatever_lambda_is(monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    _, step = make_step(StepSettings(compile=True))
    mixer = Mixer(phase("mixup_or_cutmix", mix_probability=0.7), seed=0, epoch=0)
    for at in range(8):
        images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
        step(images, labels, 1.0, mixer(at, images, labels))
    assert counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()


def test_a_captured_step_reads_both_labels_and_lambda_anew(monkeypatch):
    """What stands for a graph replays by calling what was captured, which reads the same tensors as a graph does."""

    class Replayed(step_module._CapturedStep):
        def __init__(self, model, forward, scaler, given):
            self._given = [each.clone() for each in given]
            self._forward = forward
            self._graph = self
            self._model = model

        def replay(self, given=None):
            if given is not None:
                self._loss = self._logits = None
                super().replay(given)
                return self._loss, self._logits
            self._model.zero_grad()
            loss, self._logits = self._forward(*self._given)
            loss.backward()
            self._loss = loss.detach()
            return None

    monkeypatch.setattr(step_module, "_CapturedStep", Replayed)
    mixer, states = Mixer(phase("mixup_or_cutmix"), seed=0, epoch=0), []
    for graphed in (False, True):
        torch.manual_seed(1)
        model, step = make_step(StepSettings(channels_last=False, fused_optimizer=False, cuda_graphs=graphed))
        for at in range(5):
            images, labels = torch.randn(4 if at < 4 else 3, 3, 8, 8), torch.randint(5, (4 if at < 4 else 3,))
            step(images, labels, 1.0, mixer(at, images, labels))
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.gpu
def test_replayed_steps_of_mixed_images_train_as_eager_ones(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    gpu, losses = torch.device("cuda", 0), []
    mixer = Mixer(phase("mixup_or_cutmix"), seed=0, epoch=0)
    for graphed in (False, True):
        torch.manual_seed(1)
        settings = StepSettings(cuda_graphs=graphed)
        model = Net().to(gpu)
        step = TrainingStep(
            model, make_optimizer(model.parameters(), 1e-2, 0.0, settings), device=gpu, settings=settings
        )
        given = [(torch.randn(4, 3, 8, 8).to(gpu), torch.randint(5, (4,)).to(gpu)) for _ in range(6)]
        values = []
        for at, (images, labels) in enumerate(given):
            mixed = mixer(at, images, labels)
            if at > 1:  # no step waits for the GPU
                torch.cuda.set_sync_debug_mode("error")
                mixer(at, images, labels)
                torch.cuda.set_sync_debug_mode("default")
            values.append(step(images, labels, 1.0, mixed)[0].item())
        losses.append(values)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_training_scores_of_mixed_images_are_weighted_counts():
    counter = ScoreCounter(3, CPU)
    logits = torch.eye(3)[[0, 1, 2, 2]]
    labels, others = torch.tensor([0, 2, 1, 2]), torch.tensor([1, 1, 2, 2])
    counter.add(torch.tensor(0.5), logits, labels, (others, torch.tensor(0.75)))
    counter.add(torch.tensor(1.5), logits[:2], labels[:2], (others, torch.tensor(1.0)))
    scores = counter.scores()
    # 0.75 + 0.25 + 0.25 + 1 of the first batch, 1 + 0 of the second.
    assert scores.accuracy == pytest.approx(3.25 / 6)
    assert scores.loss == pytest.approx((4 * 0.5 + 2 * 1.5) / 6)
    counts = np.zeros((3, 3))
    for lam, rows in ((0.75, range(4)), (1.0, range(2))):
        for row in rows:
            predicted = int(logits[row].argmax())
            counts[labels[row], predicted] += lam
            counts[others[row], predicted] += 1 - lam
    f1 = 2 * counts.diagonal() / (counts.sum(0) + counts.sum(1))
    assert scores.macro_f1 == pytest.approx(f1.mean())
    assert scores.weighted_f1 == pytest.approx((f1 * counts.sum(1)).sum() / 6)


@pytest.mark.parametrize(
    ("mix", "field", "expected"),
    [
        ("none", "mixup_alpha", "mix mixup or mixup_or_cutmix"),
        ("cutmix", "mixup_alpha", "mix mixup or mixup_or_cutmix"),
        ("mixup", "cutmix_alpha", "mix cutmix or mixup_or_cutmix"),
        ("none", "mix_probability", "mix mixup or cutmix or mixup_or_cutmix"),
    ],
)
def test_a_field_that_would_do_nothing_is_refused(mix, field, expected):
    with pytest.raises(ValueError, match=rf"^{field}: got 0.5 with mix {mix}, expected {expected}$"):
        phase(mix, **{field: 0.5})
    assert phase("mixup_or_cutmix", **{field: 0.5}) is not None


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("mix", "mixpu", r"one of none, mixup, cutmix, mixup_or_cutmix \(did you mean 'mixup'\?\)"),
        ("mixup_alpha", 0.0, "a number > 0"),
        ("cutmix_alpha", float("inf"), "a number > 0"),
        ("mix_probability", 0.0, "a number > 0 and <= 1"),
        ("mix_probability", 1.5, "a number > 0 and <= 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(field, value, expected):
    with pytest.raises(ValueError, match=rf"^{field}: got {value!r}, expected {expected}$"):
        phase(**{field: value})


def test_a_phase_that_mixes_says_so_and_one_that_does_not_records_nothing():
    assert str(phase("cutmix", cutmix_alpha=0.5)) == "tune(1, 0.001, mix=cutmix, cutmix_alpha=0.5)"
    assert str(phase("mixup", mix_probability=0.5)) == "tune(1, 0.001, mix=mixup, mix_probability=0.5)"
    assert phase("mixup").as_dict().keys() - phase("none").as_dict().keys() == {"mix"}
