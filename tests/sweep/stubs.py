"""Trials without training: a made objective in place of a run."""

import json

from dogs_accel.sweep.engine.study import SweepStudy
from dogs_accel.sweep.engine.trial import Progress, TrialError
from dogs_accel.sweep.engine.worker import work
from dogs_accel.sweep.settings import sweep_of

SETTINGS = {"models": ["cnn5"], "strategies": ["scratch"], "recipes": ["inaturalist-train"]}
SPACE = {"set.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "model.dense": [32, 64, 128], "recipe.flip": [0.0, 0.5]}


def made_sweep(space=SPACE, **own):
    return sweep_of({"settings": SETTINGS, "space": space, "sweep": {"pruning": "none", **own}}, {}, {})


class Killed(BaseException):
    """As if the process were gone: nothing that ends a trial is done."""


class StubbedTrain:
    """Trains in no time: the value of a point is made of it, and a file in its folder is its checkpoint.

    dies: (number of a trial, epochs after which it dies), once each.
    """

    def __init__(self, epochs=3, dies=(), fails=lambda point: False, value=None):
        self.epochs, self.dies, self.fails = epochs, set(dies), fails
        self.value = value or self.made_value
        self.trained = []
        self.removed = []

    @staticmethod
    def made_value(point):
        return 0.5 + point["model.dense"] / 1000 - abs(point["recipe.flip"] - 0.5) / 10

    def __call__(self, claimed, on_progress):
        if self.fails(claimed.point):
            raise TrialError("set: lr: got too much")
        claimed.folder.mkdir(parents=True, exist_ok=True)
        path = claimed.folder / "epochs.json"
        accuracies = json.loads(path.read_text()) if path.exists() else []
        if accuracies:
            on_progress(Progress(accuracies, float(len(accuracies)), self.epochs, 200, 42))
        while len(accuracies) < self.epochs:
            left = self.epochs - len(accuracies) - 1
            accuracies.append(self.value(claimed.point) - 0.01 * left)
            self.trained.append(claimed.number)
            path.write_text(json.dumps(accuracies))
            if (claimed.number, len(accuracies)) in self.dies:
                self.dies.remove((claimed.number, len(accuracies)))
                raise Killed
            on_progress(Progress(accuracies, float(len(accuracies)), self.epochs, 200, 42))
        return max(accuracies)

    def drop_weights(self, folder):
        if int(folder.name) not in self.removed:
            self.removed.append(int(folder.name))


def run_all(folder, sweep, train=None, **how):
    """Work until nothing is left, as one process after the other where one is killed."""
    train = train or StubbedTrain()
    said = []
    while True:
        try:
            for line in work(SweepStudy(folder, sweep), train, **how):
                said.append(line)
        except Killed:
            continue
        return said
