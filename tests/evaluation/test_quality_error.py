"""Tenths counted by hand, the trend test against statsmodels' neighbours in scipy, and the words."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, pearsonr

from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.evaluation.quality_error import (
    quality_figure,
    quality_table,
    quality_trends,
    trend_test,
    write_quality_error,
)


def case(num, correct, **columns):
    """Predictions of `num` images of which some are correct, and their metadata."""
    ids = np.array([f"n{at:05}" for at in range(num)])
    logits = np.zeros((num, 2), dtype=np.float32)
    logits[np.arange(num), np.where(correct, 0, 1)] = 2
    quality = pd.DataFrame({"image_id": ids, "width": 100, "height": 50, "brightness_mean": 0.5, "contrast_std": 0.2,
                            "saturation_mean": 0.3} | columns)  # fmt: skip
    return Predictions(logits, np.zeros(num, dtype=np.int64), ids), quality


def test_the_tenths_hold_equally_many_images_and_their_own_accuracy():
    brightness = np.random.default_rng(0).permutation(205) / 205
    correct = brightness > 0.3
    test, quality = case(205, correct, brightness_mean=brightness)
    # the rows of the metadata are in another order than the predictions, and of more images
    more = pd.concat([quality, quality.assign(image_id="train_" + quality["image_id"])]).sample(frac=1, random_state=0)
    rows = quality_table(test, more).query("quantity == 'brightness'")
    assert rows["tenth"].tolist() == list(range(1, 11))
    assert rows["num_images"].sum() == 205
    assert set(rows["num_images"]) == {20, 21}
    ordered = np.sort(brightness)
    start = 0
    for row in rows.itertuples():
        inside = ordered[start : start + row.num_images]
        start += row.num_images
        interval = binomtest(int((inside > 0.3).sum()), len(inside)).proportion_ci(method="wilson")
        assert (row.low, row.high) == (inside[0], inside[-1])
        assert row.accuracy == (inside > 0.3).mean()
        np.testing.assert_allclose((row.accuracy_low, row.accuracy_high), interval, atol=1e-12)


def test_equal_values_stay_together():
    area = np.repeat([10, 20], [15, 5])
    test, quality = case(20, np.ones(20, dtype=bool), width=area, height=1)
    rows = quality_table(test, quality).query("quantity == 'area'")
    assert rows[["tenth", "low", "high", "num_images"]].to_numpy().tolist() == [[1, 10, 10, 15], [8, 20, 20, 5]]


def test_the_trend_test_is_that_of_cochran_and_armitage():
    """Its square is N r^2, with r the correlation of score and outcome (Agresti, Categorical Data Analysis, 5.3.5)."""
    random = np.random.default_rng(3)
    tenths, num_images = np.arange(1, 11), random.integers(20, 40, 10)
    num_correct = random.binomial(num_images, np.linspace(0.6, 0.8, 10))
    z = trend_test(tenths, num_images, num_correct)
    score = np.repeat(tenths, num_images)
    outcome = np.concatenate([np.arange(n) < right for n, right in zip(num_images, num_correct, strict=True)])
    r = pearsonr(score, outcome).statistic
    assert z == pytest.approx(r * np.sqrt(len(score)))


def test_the_trend_test_agrees_with_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    num_images, num_correct = np.full(10, 30), np.array([18, 20, 19, 22, 21, 25, 23, 24, 27, 26])
    result = tables.Table(np.stack([num_correct, num_images - num_correct])).test_ordinal_association(
        row_scores=np.array([1, 0]), col_scores=np.arange(1, 11)
    )
    # statsmodels has the variance of the permutations, which is N / (N - 1) times as large
    z = trend_test(np.arange(1, 11), num_images, num_correct)
    assert z == pytest.approx(result.zscore * np.sqrt(300 / 299))


def test_a_trend_that_is_there_is_said_and_one_that_is_not_is_not():
    random = np.random.default_rng(0)
    num = 2000
    brightness, contrast = random.random(num), random.random(num)
    correct = random.random(num) < 0.6 + 0.3 * brightness
    test, quality = case(num, correct, brightness_mean=brightness, contrast_std=contrast)
    trends = {trend.quantity: trend for trend in quality_trends(quality_table(test, quality))}
    assert trends["brightness"].sentence.startswith("brightness: accuracy rises with it (0.")
    assert "in the darkest tenth" in trends["brightness"].sentence
    assert "Cochran-Armitage test for trend, p < 0.001" in trends["brightness"].sentence
    assert trends["contrast"].sentence.startswith("contrast: no trend shown (")
    assert trends["contrast"].p == pytest.approx(
        min(1, 2 * (1 - 0.5 * (1 + math.erf(abs(trends["contrast"].z) / 2**0.5))))
    )  # the largest of the p-values is corrected by nothing
    assert trends["area"].sentence == (
        "area: no trend shown, the images do not differ enough in it to be cut into tenths."
    )
    falling = quality_trends(quality_table(test, quality.assign(brightness_mean=-brightness)))[0]
    assert falling.sentence.startswith("brightness: accuracy falls with it")


def test_where_all_images_are_right_nothing_is_tested():
    test, quality = case(50, np.ones(50, dtype=bool), brightness_mean=np.arange(50) / 50)
    trend = quality_trends(quality_table(test, quality))[0]
    assert np.isnan(trend.z)
    assert np.isnan(trend.p)
    assert trend.sentence == "brightness: no trend shown, every image is classified correctly."


def test_images_without_metadata_are_left_out(tmp_path):
    test, quality = case(40, np.arange(40) % 2 == 0, brightness_mean=np.arange(40) / 40)
    table = quality_table(test, quality.iloc[:30])
    assert table.groupby("quantity")["num_images"].sum().tolist() == [30] * 4
    assert [path.name for path in write_quality_error(tmp_path, test, quality, "a run")] == [
        "quality_vs_error.csv", "quality_vs_error.png",
    ]  # fmt: skip
    none = quality.iloc[:0]
    assert [path.name for path in write_quality_error(tmp_path, test, none, "a run")] == ["quality_vs_error.csv"]
    assert not (tmp_path / "quality_vs_error.png").exists()
    empty = pd.read_csv(tmp_path / "quality_vs_error.csv")
    assert empty.empty
    assert empty.columns.tolist() == table.columns.tolist()
    assert {trend.sentence for trend in quality_trends(empty)} == {
        f"{name}: not measured, no test image has a row in the metadata."
        for name in ("brightness", "contrast", "saturation", "area")
    }
    with pytest.raises(ValueError, match="got no rows"):
        quality_figure(empty, "a run")


def test_the_sentences_follow_from_the_file_alone(tmp_path):
    random = np.random.default_rng(1)
    test, quality = case(333, random.random(333) < 0.7, brightness_mean=random.random(333))
    write_quality_error(tmp_path, test, quality, "a run")
    read = quality_trends(pd.read_csv(tmp_path / "quality_vs_error.csv"))
    assert [trend.sentence for trend in read] == [
        trend.sentence for trend in quality_trends(quality_table(test, quality))
    ]
