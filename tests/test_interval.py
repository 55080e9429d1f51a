"""Intervals: coverage in a simulation of the project's own design, and what can be worked by hand or by scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from benchmarks import coverage
from reports import interval

EXPERIMENTS = 2000


@pytest.fixture(scope="module")
def experiments():
    rng = np.random.default_rng(0)
    return [coverage.experiment(rng) for _ in range(EXPERIMENTS)]


@pytest.mark.parametrize("case", coverage.CASES, ids=str)
def test_intervals_cover_what_they_say(case, experiments):
    """The target is the mean over new recordings in both parts: the mean over all experiments."""
    assert (len(coverage.TEST), len(coverage.POOL), coverage.VALIDATION.shape) == (232, 926, (10, 206))
    rights = coverage.rights_of(case, experiments)
    truth = np.mean([right.mean() for right in rights])
    ends = [coverage.ours(case, right) for right in rights]
    assert 0.93 <= np.mean([low <= truth <= high for low, high in ends]) <= 0.97
    if case[1] is None:
        assert 0.85 < truth < 0.97, "it is no test of what the project measures"


def ends_of(right):
    found = interval.estimate(right)
    return found.low, found.high


def test_trainings_that_agree_leave_the_choice_of_samples():
    """Where all trainings answer alike there is but one list of right and wrong, and its error is scipy's."""
    right = np.random.default_rng(0).random(2000) < 0.95
    alike = np.tile(right, (5, 1))
    assert ends_of(alike) == pytest.approx(ttest_1samp(right, 0).confidence_interval(), abs=1e-5)
    wilson = binomtest(int(right.sum()), 2000).proportion_ci(method="wilson")
    assert interval.accuracy(alike) == pytest.approx(wilson, abs=1e-4)


def test_samples_that_agree_leave_the_trainings():
    """Where all samples of a training are alike, the trainings are a sample like any other: scipy's t interval."""
    accuracies = np.array([0.1, 0.4, 0.3, 0.2])
    found, theirs = interval.estimate(np.tile(accuracies[:, None], 50)), ttest_1samp(accuracies, 0)
    assert (found.low, found.high) == pytest.approx(theirs.confidence_interval())
    assert found.p == pytest.approx(theirs.pvalue)


def test_an_interval_by_hand():
    # means of samples 1, 1/2, 1/2: variance 1/12; of trainings 1, 1/3: variance 2/9; rest +-1/6, +-1/12: see below
    right = np.array([[1.0, 1, 1], [1, 0, 0]])
    # rest: 1 - 1 - 1 + 2/3 = -1/3; 1/6; 1/6; 1 - 1/3 - 1 + 2/3 = 1/3; -1/6; -1/6: squares 1/3 over one degree and two
    variance = (1 / 12) / 3 + (2 / 9) / 2 - (1 / 3 / 2) / 6
    freedom = variance**2 / ((1 / 36) ** 2 / 2 + (1 / 9) ** 2 / 1)
    assert (variance, freedom) == pytest.approx((1 / 9, 0.969697), rel=1e-5)
    from scipy.stats import t

    found = interval.estimate(right)
    assert found.mean == pytest.approx(2 / 3) and found.high - found.mean == pytest.approx(t.ppf(0.975, freedom) / 3)


def test_nothing_wrong_is_not_certainty():
    low, high = interval.accuracy(np.ones((10, 232)))
    assert high == 1 and low == pytest.approx(binomtest(232, 232).proportion_ci(method="wilson").low, abs=1e-3)
    equal = interval.estimate(np.zeros((10, 232)))  # two methods that are right together, and wrong together
    differing = binomtest(0, 232).proportion_ci(method="exact", confidence_level=0.9).high
    assert equal.p == 1 and (equal.high, equal.low) == pytest.approx((differing, -differing), abs=1e-3)
    assert interval.estimate(np.ones((10, 232))).p == 0
    with pytest.raises(ValueError, match="two splits and two test samples, not 1 and 9"):
        interval.estimate(np.ones((1, 9)))


def test_a_record_that_contradicts_itself_tells_nothing():
    whole = {"right": "b0", "confusion": [[1, 0], [1, 2]], "result": {"test_accuracy": 0.75}}
    assert interval.right_of(whole).tolist() == [1, 0, 1, 1]
    for change in (
        {"right": None},
        {"right": "x"},
        {"right": "f0"},
        {"right": ""},
        {"confusion": None},
        {"result": {}},
    ):
        assert interval.right_of(whole | change) is None
