"""What each of several processes finds out, as JSON for the tests."""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from dogs_accel.datasets import open_dataset
from dogs_accel.evaluation.metrics import evaluate_predictions
from dogs_accel.evaluation.predictions import predict
from dogs_accel.evaluation.scores import ScoreCounter
from dogs_accel.experiment.plan import check_alike
from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec
from dogs_accel.runtime.processes import OtherProcessError, World, joined, world_from_environment
from dogs_accel.training import mixing, trainer
from dogs_accel.training.phases import Phase
from pipelines import EVAL, VIT_TRAIN, make_loader

BATCH_SIZE = 6
"""Of all processes together."""
NUM_TRAIN = (25, 23, 30)
"""A last global batch of one image, of an uneven number, and a whole one."""
NUM_VAL = 7
EVALUATED = (("resnet18", 23), ("timm/vit_tiny_patch16_224", 23), ("resnet18", 2))
"""Models and numbers of test images, which leave the last process with fewer than the others, or with none."""
CPU = torch.device("cpu")
PHASE = Phase(
    name="all", mode="full_finetune", epochs=9, lr=0.02, optimizer="sgd", schedule="one_cycle", unfreeze_every=1,
    patience=2, min_delta=10, monitor="loss", clip_norm=0.1, label_smoothing=0.1, ema_decay=0.5,
)  # fmt: skip
"""It ends after three epochs."""


class PlainNet(nn.Module):
    """Without BatchNorm, which sees the images of its own process only."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.fc = nn.Linear(32, 4)

    def forward(self, images):
        return self.fc(self.body(images))


class Watched(trainer.Trainer):
    """Keeps what each step got."""

    def _weighted(self, loader, num_steps):
        for batch, weight in super()._weighted(loader, num_steps):
            self.steps.append((batch.index.tolist(), weight))
            yield batch, weight


def loader_of(data, split, num_images, recipe, batch_size, world, *, shuffle=False):
    index = data.split(split, val_ratio=0.3)[:num_images]
    return make_loader(
        [data.paths[i] for i in index],
        data.labels[index],
        recipe,
        backend="dali",
        batch_size=batch_size,
        device="cpu",
        seed=3,
        shuffle=shuffle,
        num_threads=1,
        rank=world.rank,
        world_size=world.size,
    )


def gradient_of(model):
    """All of a model in one row, 0 where it is frozen."""
    found = [torch.zeros_like(each) if each.grad is None else each.grad for each in model.parameters()]
    return torch.cat([each.flatten() for each in found])


def trained(data, world, folder, num_images, **how):
    """Gradients, samples and history of an epoch of the head alone and two of everything.

    how: more settings of the phase.
    """
    torch.manual_seed(0)
    model, gradients = PlainNet(), []
    phase_optimizer = trainer.phase_optimizer

    def watched_optimizer(*arguments):
        optimizer = phase_optimizer(*arguments)
        optimizer.register_step_pre_hook(lambda *_: gradients.append(gradient_of(model).tolist()))
        return optimizer

    trainer.phase_optimizer = watched_optimizer
    try:
        with (
            loader_of(
                data, "train", num_images, VIT_TRAIN.at(32), BATCH_SIZE // world.size, world, shuffle=True
            ) as few,
            loader_of(data, "val", NUM_VAL, EVAL.at(32), 3, world) as val,
        ):
            watched = Watched(model, few, val, num_classes=4, device=CPU, folder=folder, world=world)
            watched.steps = []
            result = watched.run([dataclasses.replace(PHASE, **how)])
    finally:
        trainer.phase_optimizer = phase_optimizer
    return {"gradients": gradients, "steps": watched.steps, "history": result.history}


def evaluated(data, world, name, num_images):
    """Predictions and scores of a model that all processes have alike."""
    spec = model_spec(name, 64)
    model = build_model(spec, data.num_classes, "none", seed=1).model.eval()
    ids = [data.ids[i] for i in data.split("test", val_ratio=0.3)[:num_images]]
    counter = ScoreCounter(data.num_classes, CPU)
    with loader_of(data, "test", num_images, EVAL.at(64), 5, world) as loader:
        predictions = predict(model, loader, ids, world=world)
        with torch.inference_mode():
            for images, labels, _ in loader:
                logits = model(images)
                counter.add(nn.functional.cross_entropy(logits, labels), logits, labels)
    return {
        "logits": predictions.logits.tolist(),
        "labels": predictions.labels.tolist(),
        "ids": predictions.ids.tolist(),
        "expected_ids": ids,
        "metrics": evaluate_predictions(predictions),
        "scores": counter.scores(world).as_columns("test"),
    }


def work(data, world, folder):
    """What must not depend on the number of processes."""
    return {
        "trained": {num: trained(data, world, folder / str(num), num) for num in NUM_TRAIN},
        "evaluated": {f"{name} {num}": evaluated(data, world, name, num) for name, num in EVALUATED},
    }


def mixed(data, world, folder):
    """What each step drew and its gradients, of the same training on mixed images twice."""
    draws, draw_mix = [], mixing.draw_mix

    def watched_draw(*arguments, **sizes):
        drawn = draw_mix(*arguments, **sizes)
        draws.append([sizes["epoch"], sizes["step"], drawn.lam, drawn.box])
        return drawn

    mixing.draw_mix = watched_draw
    try:
        how = {"mix": "mixup_or_cutmix", "mixup_alpha": 1.0}
        runs = [trained(data, world, folder / f"mixed {number}", NUM_TRAIN[0], **how) for number in range(2)]
    finally:
        mixing.draw_mix = draw_mix
    return {"draws": draws, "runs": runs}


def outcome(call):
    """What a call returned, or the name and the words of what it raised."""
    try:
        return call()
    except (ValueError, OtherProcessError, SystemExit) as error:
        return [type(error).__name__, str(error)]


def world_facts(world, folder):
    """What the processes tell each other; the last one plays a second machine."""
    last = world.size - 1
    here = World(
        rank=world.rank,
        size=world.size,
        local_rank=0 if world.rank == last else world.rank,
        local_size=1 if world.rank == last else last,
    )
    path = folder / "order"

    def note(failing=None):
        with path.open("a") as file:
            file.write(f"{world.rank}\n")
        if world.rank == failing:
            raise ValueError(f"broken in {world.rank}")
        return world.rank

    def fail(words="broken"):
        raise ValueError(words)

    def leave():
        sys.exit(3)

    def fail_but_first():
        return fail(f"broken in {world.rank}") if world.rank else "fine"

    counts = torch.tensor([world.rank + 1, 2**40], dtype=torch.int64)
    halves = torch.tensor(0.5, dtype=torch.float64)
    world.all_reduce(counts, halves)
    strided = torch.full((2, 3), float(world.rank)).T
    world.broadcast_tensors([strided])
    facts = {
        "broadcast": world.broadcast(lambda: {"rank": world.rank, "array": torch.arange(3).tolist()}),
        "broadcast_failing": outcome(lambda: world.broadcast(fail)),
        "broadcast_leaving": outcome(lambda: world.broadcast(leave)),
        "on_all_ranks": world.on_all_ranks(lambda: world.rank * 10),
        "in_all_failing": outcome(lambda: world.on_all_ranks(fail_but_first)),
        "gathered": world.all_gather(f"of {world.rank}"),
        "sums": [counts.tolist(), halves.item()],
        "copied": strided.tolist(),
        "local_rank_zero_first": here.local_rank_zero_first(note),
    }
    facts["order"] = world.broadcast(path.read_text).split()
    world.broadcast(path.unlink)
    facts["first_here_failing"] = outcome(lambda: here.local_rank_zero_first(lambda: note(failing=last)))
    facts["order_failing"] = world.broadcast(path.read_text).split()
    return facts


def other_data(data, world):
    """What is said where a machine has its images in another order."""
    here = dataclasses.replace(data, ids=data.ids[::-1]) if world.rank else data
    return outcome(lambda: check_alike(SimpleNamespace(world=world, device=CPU, amp=None, data=here)))


def main(root, out):
    """The body of one of several processes: the first writes to `out` what each found."""
    data = open_dataset(root)
    torch.set_num_threads(1)
    world = world_from_environment()
    with joined(world), tempfile.TemporaryDirectory() as own:
        folder = Path(world.broadcast(lambda: own))
        found = {"world": world_facts(world, folder), **work(data, world, folder)}
        found["other_data"] = other_data(data, world)
        found["mixed"] = mixed(data, world, folder)
        with loader_of(data, "train", world.size - 1, EVAL.at(32), 1, world) as loader:
            plain = trainer.Trainer(PlainNet(), loader, loader, num_classes=4, device=CPU, folder=folder, world=world)
            found["too_few"] = outcome(lambda: plain.run([Phase(name="all", mode="full_finetune", epochs=1, lr=1.0)]))
        every = world.all_gather(found)
    if world.is_rank_zero:
        out.write_text(json.dumps(every))
