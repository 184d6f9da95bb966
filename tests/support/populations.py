"""Simulated truths from which test sets are drawn."""

import numpy as np

from dogs_accel.evaluation.intervals import bootstrap_scores


class Population:
    """Classes that are Gaussian clouds, and their exact posterior, made too sure by a factor on its logits."""

    def __init__(self, num_classes, spread, sharpness):
        random = np.random.default_rng(0)
        self.centres = random.normal(size=(num_classes, num_classes // 2)) * spread
        self.sharpness = sharpness
        logits, labels = self.sample(200_000 // num_classes, random)
        self.true = bootstrap_scores(logits, labels, num_resamples=1).estimate

    def sample(self, images_per_class, random):
        labels = np.repeat(np.arange(len(self.centres)), images_per_class)
        points = self.centres[labels] + random.normal(size=(len(labels), self.centres.shape[1]))
        posterior = points @ self.centres.T - (self.centres**2).sum(axis=1) / 2
        return (posterior * self.sharpness).astype(np.float32), labels
