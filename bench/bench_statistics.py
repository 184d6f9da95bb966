"""The stratified bootstrap of a test split against the obvious loop over scikit-learn."""

import numpy as np
from sklearn.metrics import f1_score

from dogs_accel.evaluation.intervals import NUM_RESAMPLES, bootstrap_scores
from dogs_accel.runtime.timing import Timing, interleaved

NUM_CLASSES = 120


def example(num):
    """Logits of a classifier that is right about four times of five."""
    random = np.random.default_rng(0)
    labels = np.arange(num) % NUM_CLASSES
    logits = random.normal(size=(num, NUM_CLASSES)).astype(np.float32) * 2
    logits[np.arange(num), labels] += 6
    return logits, labels


def loop(logits, labels, num_resamples):
    """Macro F1 alone: draw within each class, pick the rows, score them."""
    random = np.random.default_rng(0)
    rows_of_class = [np.flatnonzero(labels == label) for label in range(NUM_CLASSES)]
    predicted = logits.argmax(axis=1)
    scores = []
    for _ in range(num_resamples):
        rows = np.concatenate([random.choice(rows, len(rows)) for rows in rows_of_class])
        scores.append(f1_score(labels[rows], predicted[rows], average="macro"))
    return scores


def test_stratified_bootstrap(bench):
    num, num_resamples, num_in_loop = (8_580, NUM_RESAMPLES, 20) if bench.measure else (480, 30, 3)
    logits, labels = example(num)
    ours = bootstrap_scores(logits, labels, num_resamples=num_resamples).resampled["macro_f1"]
    theirs = loop(logits, labels, 10 * num_in_loop)
    assert abs(ours.mean() - np.mean(theirs)) < 5 * np.std(theirs)
    candidates = {
        "scikit-learn in a loop, macro F1 alone": lambda: loop(logits, labels, num_in_loop),
        "dogs_accel, all scores": lambda: bootstrap_scores(logits, labels, num_resamples=num_resamples),
    }
    timings = interleaved(candidates, bench.rounds)
    # A round of the loop has fewer resamples: times are of one.
    per_resample = {
        name: Timing(*(tuple(value / num_done for value in times) for times in (timing.seconds, timing.cpu_seconds)))
        for (name, timing), num_done in zip(timings.items(), (num_in_loop, num_resamples), strict=True)
    }
    counts = f"{num_resamples:,} resamples a round, {num_in_loop} of the loop"
    title = f"stratified bootstrap of {num:,} x {NUM_CLASSES} logits, {counts}"
    bench.report("bootstrap", title, per_resample, "scikit-learn in a loop, macro F1 alone", 1, "resamples")
