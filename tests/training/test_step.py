"""One step of training against a plain loop, and each of its switches against the step without it."""

import functools

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from dogs_accel.models.freezing import set_train_mode, set_trainable_stage
from dogs_accel.runtime.precision import autocast
from dogs_accel.training.ema import AveragedWeights
from dogs_accel.training.optimizers import make_optimizer, set_rates
from dogs_accel.training.phases import Phase
from dogs_accel.training.step import (
    StepSettings,
    TrainingStep,
    forward_of,
    kept_bytes,
    make_scaler,
    prepare_model,
)
from pipelines.clock import StepClock

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
PLAIN = StepSettings(channels_last=False, fused_optimizer=False)
COSINE = Phase(name="tune", mode="full_finetune", epochs=2, lr=1e-2)
BATCHES = (8, 8, 8, 3, 8, 3)
"""Batch sizes of the steps; the last one of an epoch is partial."""
needs_gpu = pytest.mark.gpu


class TinyNet(nn.Module):
    def __init__(self, width=8, dropout=0.0):
        super().__init__()
        self.body = nn.Sequential(
            # Without a bias, whose gradient before a BatchNorm is rounding and nothing else.
            nn.Conv2d(3, width, 3, stride=2, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 16, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout),
        )  # fmt: skip
        self.fc = nn.Linear(64, 5)

    def forward(self, images):
        return self.fc(self.body(images))


def tiny_net(**how):
    torch.manual_seed(0)
    return TinyNet(**how)


def batches(device=CPU, sizes=BATCHES):
    """Images as the loaders give them, in channels-last memory."""
    torch.manual_seed(1)
    made = [(torch.randn(size, 3, 16, 16), torch.randint(5, (size,))) for size in sizes]
    return [
        (images.to(device).contiguous(memory_format=torch.channels_last), labels.to(device)) for images, labels in made
    ]


def make_step(settings, device=CPU, model=None, mode="full_finetune", lr=1e-2, **how):
    model = prepare_model(tiny_net() if model is None else model, device, settings)
    set_trainable_stage(model, mode)
    set_train_mode(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, TrainingStep(model, make_optimizer(trained, lr, 1e-2, settings), device=device, settings=settings,
                               **how)  # fmt: skip


def take_steps(step, given):
    for images, labels in given:
        step(images, labels)


def train(settings, device=CPU, given=None, **how):
    """Losses, logits and the final state."""
    model, step = make_step(settings, device, **how)
    losses, logits = [], []
    for images, labels in given or batches(device):
        loss, scores = step(images, labels)
        losses.append(loss.item())
        logits.append(scores.float().cpu())
    return losses, logits, {name: value.cpu() for name, value in model.state_dict().items()}


def plain_training(channels_last, fused):
    """The same steps, as short as they can be written."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = tiny_net().to(memory_format=layout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2, fused=fused)
    losses = []
    for images, labels in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images.contiguous(memory_format=layout)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


def assert_same_training(one, other, rtol, atol):
    assert one[0] == pytest.approx(other[0], rel=rtol, abs=atol)
    for ours, theirs in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)
    assert one[2].keys() == other[2].keys()
    for name, value in one[2].items():
        torch.testing.assert_close(
            value, other[2][name], rtol=rtol, atol=atol, msg=lambda text, at=name: f"{at} {text}"
        )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_float32_steps_are_those_of_a_plain_loop_to_the_bit(channels_last, fused):
    losses, _, state = train(StepSettings(channels_last=channels_last, fused_optimizer=fused))
    plain_losses, plain_state = plain_training(channels_last, fused)
    assert losses == plain_losses
    assert all(torch.equal(state[name], value) for name, value in plain_state.items())
    assert state["body.1.num_batches_tracked"] == len(BATCHES)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (StepSettings(channels_last=True, fused_optimizer=False), 1e-5),
        (StepSettings(channels_last=False, fused_optimizer=True), 1e-5),
        (StepSettings(channels_last=False, fused_optimizer=False, amp=torch.bfloat16), 5e-2),
    ],
    ids=["channels-last", "fused optimiser", "bf16"],
)
def test_each_switch_alone_changes_the_numbers_by_rounding_only(settings, tolerance):
    assert_same_training(train(settings), train(PLAIN), tolerance, tolerance)


@pytest.mark.slow
def test_compiled_steps_train_as_eager_ones_with_two_graphs():
    torch._dynamo.reset()
    counters.clear()
    compiled = train(StepSettings(channels_last=False, fused_optimizer=False, compile=True))
    assert counters["stats"]["unique_graphs"] == len(set(BATCHES))
    assert not counters["graph_break"]
    assert_same_training(compiled, train(PLAIN), 1e-4, 1e-5)


@pytest.fixture
def quick_compile(monkeypatch):
    """torch.compile up to the code generation, which takes most of its time."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    torch._dynamo.reset()


COMPILED = StepSettings(compile=True)


def test_a_batch_size_is_compiled_once_and_training_and_evaluation_apart(quick_compile):
    model, step = make_step(COMPILED)
    for images, labels in batches() * 2:
        step(images, labels)
    assert counters["stats"]["unique_graphs"] == 2
    set_rates(step.optimizer, COSINE, 1)
    step(*batches()[0])
    forward = forward_of(model, CPU, COMPILED)
    model.eval()
    for _ in range(2):
        with torch.inference_mode():
            for images, labels in batches(sizes=(16, 5)):
                forward(images, labels)
        set_train_mode(model)
        step(*batches()[0])
        model.eval()
    assert counters["stats"]["unique_graphs"] == 4


def test_another_seed_of_a_model_is_not_compiled_again(quick_compile):
    for seed in range(3):
        torch.manual_seed(seed)
        _, step = make_step(COMPILED, model=TinyNet())
        take_steps(step, batches())
    assert counters["stats"]["unique_graphs"] == 2


def test_no_model_of_a_long_command_is_left_to_run_uncompiled(quick_compile):
    # torch keeps 8 graphs of a function by default, and runs it as it is from then on.
    for width in range(4, 10):
        _, step = make_step(COMPILED, model=tiny_net(width=width))
        take_steps(step, batches())
    assert counters["stats"]["unique_graphs"] == 12
    assert counters["frames"]["total"] == counters["frames"]["ok"] == 12


def test_without_channels_last_a_convolution_sees_contiguous_images_whatever_the_loader_gives():
    for settings, layout in ((PLAIN, torch.contiguous_format), (StepSettings(), torch.channels_last)):
        model, step = make_step(settings)
        seen = []
        model.body[0].register_forward_pre_hook(
            lambda _, inputs, seen=seen, layout=layout: seen.append(inputs[0].is_contiguous(memory_format=layout))
        )
        images, labels = batches()[0]
        step(images, labels)
        step(images.contiguous(), labels)
        assert seen == [True, True]
        assert model.body[0].weight.is_contiguous(memory_format=layout)


def test_features_have_no_layout():
    head = nn.Linear(6, 5)
    step = TrainingStep(head, make_optimizer(head.parameters(), 1e-2, 0.0, PLAIN), device=CPU, settings=StepSettings())
    loss, logits = step(torch.randn(4, 6), torch.arange(4))
    assert logits.shape == (4, 5)
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(logits, torch.arange(4)).item())


def test_the_learning_rate_is_a_share_of_each_groups_own():
    model = tiny_net()
    groups = [
        {"params": list(model.fc.parameters()), "lr": 1e-2},
        {"params": list(model.body.parameters()), "lr": 1e-3},
    ]
    step = TrainingStep(model, make_optimizer(groups, 1.0, 1e-2, PLAIN), device=CPU, settings=PLAIN)
    for epoch, expected in ((1, [5e-3, 5e-4]), (0, [1e-2, 1e-3]), (2, [0, 0])):
        set_rates(step.optimizer, COSINE, epoch)
        assert [group["lr"] for group in step.optimizer.param_groups] == expected
    before = {name: value.clone() for name, value in model.named_parameters()}
    step(*batches()[0])
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_the_weight_scales_the_gradient_and_not_the_loss():
    gradients, losses = {}, {}
    for weight in (1.0, 0.25, 0.0):
        model, step = make_step(PLAIN, lr=1e-9)
        losses[weight] = step(*batches()[0], weight)[0].item()
        gradients[weight] = {name: value.grad.clone() for name, value in model.named_parameters()}
    assert losses[0.25] == losses[0.0] == losses[1.0]
    for name, whole in gradients[1.0].items():
        assert torch.equal(gradients[0.25][name], whole / 4)
        assert not gradients[0.0][name].any()


def saved_elements(step, given):
    """Elements that a step keeps for its backward, weights left out."""
    saved = []

    def keep(tensor):
        if not isinstance(tensor, nn.Parameter):
            saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step(*given)
    return sum(saved)


def leaves(root):
    """Tensors into which a graph's backward adds gradients."""
    found, seen, left = [], set(), [root]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        left += [each for each, _ in node.next_functions]
    return found, seen


def test_a_frozen_backbone_builds_no_graph_and_keeps_no_activations():
    given = batches()[0]
    model, step = make_step(PLAIN, mode="head_only")
    loss, _ = forward_of(model, CPU, PLAIN)(*given)
    found, nodes = leaves(loss.grad_fn)
    assert {id(leaf) for leaf in found} == {id(parameter) for parameter in model.fc.parameters()}
    assert not [node for node in nodes if "Convolution" in node.name() or "BatchNorm" in node.name()]
    _, full_step = make_step(PLAIN)
    # Features (8, 64), logits and log-probabilities (8, 5), labels and the loss's total weight.
    assert saved_elements(step, given) <= 8 * (64 + 5 + 5 + 1) + 1
    assert saved_elements(full_step, given) > 8 * 3 * 16 * 16
    assert all(parameter.grad is None for parameter in model.body.parameters())


def test_a_clock_gets_the_parts_in_their_order_and_none_is_needed():
    clock = StepClock(CPU)
    _, step = make_step(PLAIN, clock=clock)
    clock.mark("start")
    take_steps(step, batches()[:2])
    assert [part for part, _ in clock.read()] == ["forward", "backward", "optimizer"] * 2
    _, step = make_step(PLAIN)
    assert step.clock is None


@pytest.mark.parametrize("amp", [None, pytest.param(torch.float16, id="fp16")])
@pytest.mark.parametrize("clip_norm", [0.05, 1e6])
def test_gradients_are_cut_as_torch_cuts_them(amp, clip_norm):
    """With a scaled loss too: it is the gradients themselves that have a length."""
    settings = StepSettings(amp=amp, fused_optimizer=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6, enabled=amp is not None)
    model, step = make_step(settings, clip_norm=clip_norm, scaler=scaler)
    expected = prepare_model(tiny_net(), CPU, settings).train()
    optimizer = make_optimizer(expected.parameters(), 1e-2, 1e-2, settings)
    for images, labels in batches():
        step(images, labels)
        optimizer.zero_grad()
        with autocast(CPU, amp):
            loss = nn.functional.cross_entropy(expected(images), labels)
        (loss * scaler.get_scale()).backward()
        for parameter in expected.parameters():
            parameter.grad /= scaler.get_scale()
        length = nn.utils.clip_grad_norm_(expected.parameters(), clip_norm)
        assert 0.05 < length < 1e6
        optimizer.step()
    for value, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0)


def test_what_follows_a_step_comes_after_its_weights_have_moved():
    model, seen = tiny_net(), []
    _, step = make_step(PLAIN, model=model, after_step=lambda: seen.append(model.fc.weight.detach().clone()))
    before = model.fc.weight.detach().clone()
    step(*batches()[0])
    assert [torch.equal(each, model.fc.weight) for each in seen] == [True]
    assert not torch.equal(before, model.fc.weight)


def test_only_float16_is_scaled():
    assert not make_scaler(CPU, PLAIN).is_enabled()
    assert not make_scaler(CPU, StepSettings(amp=torch.bfloat16)).is_enabled()
    assert make_scaler(CPU, StepSettings(amp=torch.float16)).is_enabled()


@pytest.fixture
def exact_kernels(monkeypatch):
    """The same bits from the same numbers, so that replayed and eager steps can be held to each other."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def with_graphs(amp=None):
    return StepSettings(amp=amp, cuda_graphs=True), StepSettings(amp=amp)


@needs_gpu
@pytest.mark.parametrize(("amp", "tolerance"), [(None, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_replayed_steps_train_as_eager_ones(exact_kernels, amp, tolerance):
    graphed, eager = with_graphs(amp)
    # Long enough for the scale of float16, which begins too high, to come down.
    given = batches(GPU, BATCHES * 4)
    assert_same_training(train(graphed, GPU, given), train(eager, GPU, given), tolerance, tolerance)


@needs_gpu
def test_statistics_of_batch_norm_count_the_steps_and_not_the_warm_up(exact_kernels):
    graphed, eager = with_graphs()
    model, step = make_step(graphed, GPU)
    plain, plain_step = make_step(eager, GPU)
    for count, (images, labels) in enumerate(batches(GPU), start=1):
        step(images, labels)
        plain_step(images, labels)
        assert model.body[1].num_batches_tracked == count
        torch.testing.assert_close(model.body[1].running_mean, plain.body[1].running_mean)
        torch.testing.assert_close(model.body[1].running_var, plain.body[1].running_var)


@needs_gpu
def test_gradients_stay_where_the_graph_writes_them():
    model, step = make_step(with_graphs()[0], GPU)
    places = []
    for images, labels in batches(GPU):
        step(images, labels)
        places.append([parameter.grad.data_ptr() for parameter in model.parameters()])
    assert all(place == places[0] for place in places)


@needs_gpu
def test_two_phases_have_a_graph_each(exact_kernels):
    states = []
    for settings in with_graphs():
        model = tiny_net()
        for mode in ("head_only", "full_finetune"):
            _, step = make_step(settings, GPU, model=model, mode=mode)
            frozen = {name: value.clone() for name, value in model.body.named_parameters()}
            take_steps(step, batches(GPU))
            same = [torch.equal(value, frozen[name]) for name, value in model.body.named_parameters()]
            assert all(same) if mode == "head_only" else not any(same)
        states.append(model.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-5, atol=1e-5)


@needs_gpu
def test_a_weight_is_not_lost_in_a_graph(exact_kernels):
    images, labels = batches(GPU)[0]
    gradients = []
    for settings in with_graphs():
        model, step = make_step(settings, GPU, lr=1e-9)
        step(images, labels)
        step(images, labels, 0.25)
        gradients.append(model.fc.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@needs_gpu
def test_dropout_draws_from_the_seed_also_in_a_graph(exact_kernels):
    def losses(settings, seed):
        _, step = make_step(settings, GPU, model=tiny_net(dropout=0.5))
        given = batches(GPU, (8,) * 6)
        torch.manual_seed(seed)
        return [step(images, labels)[0].item() for images, labels in given]

    graphed, eager = with_graphs()
    assert losses(graphed, 3) == losses(graphed, 3)
    assert losses(graphed, 3) != losses(graphed, 4)
    # The warm-up before the capture draws nothing that the steps then lack.
    assert losses(graphed, 3) == pytest.approx(losses(eager, 3), rel=1e-4)


@needs_gpu
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("graphed", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_no_step_waits_for_the_gpu(amp, graphed, decay):
    model = prepare_model(tiny_net(), GPU, StepSettings())
    average = AveragedWeights(model, ["fc.weight"], decay)
    how = {"clip_norm": 1.0, "after_step": average.update} if decay else {}
    _, step = make_step(StepSettings(amp=amp, cuda_graphs=graphed), GPU, model, clock=StepClock(GPU), **how)
    given = batches(GPU)
    take_steps(step, given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, labels in given:
            set_rates(step.optimizer, COSINE, 1)
            step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_a_forward_keeps_is_counted_and_changes_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 5))
    for num_images in (2, 4):  # the images, and the map behind the ReLU, which is the input of the last layer too
        assert kept_bytes(model, torch.zeros(num_images, 3, 8, 8), None) == num_images * 4 * 64 * (3 + 4)
    model = tiny_net(dropout=0.5).train()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    assert kept_bytes(model, torch.zeros(2, 3, 16, 16), torch.bfloat16) < kept_bytes(
        model, torch.zeros(2, 3, 16, 16), None
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
