"""Against hand-computed cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyloop.statistics import (
    bootstrap_interval,
    chance_of_more,
    chance_of_more_paired,
    difference_interval,
    interquartile_mean,
    probability_of_improvement,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 3.0], 2.0),
        ([1.0, 2.0, 9.0], 4.0),
        ([100.0, 2.0, -50.0, 4.0], 3.0),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4.5),
        ([0.0, 0.0, 10.0, 20.0, 30.0, 1e9, -1e9, 40.0], 15.0),  # the middle four: 0, 10, 20, 30
    ],
)
def test_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(values) == pytest.approx(expected)
    assert interquartile_mean(values[::-1]) == pytest.approx(expected)


def test_the_bootstrap_interval_of_equal_values_is_that_value() -> None:
    assert bootstrap_interval([7.0] * 20) == (7.0, 7.0)


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(100, 20, 400)
    low, high = bootstrap_interval(values.tolist())
    # for a mean of 400 values of deviation 20: +-1.96 * 20 / sqrt(400)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.25)
    assert high == pytest.approx(values.mean() + half, abs=0.25)


def test_the_bootstrap_interval_lies_within_the_values_and_widens_with_their_spread() -> None:
    narrow, wide = bootstrap_interval([9.0, 10.0, 11.0, 10.0]), bootstrap_interval([0.0, 10.0, 20.0, 10.0])
    assert 9 <= narrow[0] < 10 < narrow[1] <= 11
    assert wide[0] < narrow[0]
    assert wide[1] > narrow[1]
    assert bootstrap_interval([9.0, 10.0, 11.0, 10.0]) == narrow


def test_interquartile_means_are_taken_row_by_row() -> None:
    rows = np.array([[1.0, 2.0, 3.0, 100.0], [0.0, 0.0, 4.0, 8.0]])
    assert interquartile_mean(rows).tolist() == [2.5, 2.0]


def test_an_interval_widens_with_confidence() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    (low, high), (lower, higher) = (bootstrap_interval(values, confidence=confidence) for confidence in (0.5, 0.99))
    assert lower < low < high < higher


def test_within_strata_only_like_replaces_like() -> None:
    # each stratum holds one value twice, so that every draw is the same: (5 + 5 + 100 + 100) / 4
    assert bootstrap_interval([5.0, 100.0, 5.0, 100.0], strata=[0, 1, 0, 1]) == (52.5, 52.5)
    assert bootstrap_interval([5.0, 100.0, 5.0, 100.0])[0] < 52.5


def test_the_luck_of_an_arena_cancels_in_pairs() -> None:
    others = np.random.default_rng(2).normal(0, 1000, 40)
    paired = difference_interval((others + 3).tolist(), others.tolist(), paired=True)
    assert paired == (pytest.approx(3), pytest.approx(3))
    low, high = difference_interval((others + 3).tolist(), others.tolist(), paired=False)
    # two means of 40 values of deviation 1000: +-1.96 * 1000 * sqrt(2 / 40)
    assert high - low == pytest.approx(2 * 1.96 * others.std() * math.sqrt(2 / 40), rel=0.05)


def test_a_difference_of_interquartile_means_does_not_see_outliers() -> None:
    others = [10.0] * 16
    values = [11.0] * 15 + [-1e9]
    assert difference_interval(values, others, interquartile_mean, paired=True) == (1.0, 1.0)
    assert difference_interval(values, others, paired=True)[0] < -1e7


def test_who_improves_how_often_by_hand() -> None:
    assert probability_of_improvement([1.0, 5.0, 3.0, 9.0], [0.0, 5.0, 4.0, 8.0], paired=True) == (1 + 0.5 + 0 + 1) / 4
    # 2 > 1; 2 < 3; 4 > 1; 4 > 3; ties count half: 1 = 1, 1 < 3
    assert probability_of_improvement([2.0, 4.0, 1.0], [1.0, 3.0], paired=False) == (1 + 0 + 1 + 1 + 0.5 + 0) / 6


def test_mishaps_in_pairs_by_hand() -> None:
    # of five pairs that differ, all five speak against the first: 1 / 2^5
    assert chance_of_more_paired([True] * 6 + [False] * 4, [True] + [False] * 9) == 1 / 32
    # four against, one for: (5 + 1) / 2^5
    assert chance_of_more_paired([True] * 4 + [False], [False] * 4 + [True]) == 6 / 32
    assert chance_of_more_paired([False] * 9, [False] * 9) == 1
    assert chance_of_more_paired([False] * 9, [True] * 9) == 1


def test_mishaps_in_different_arenas_by_hand() -> None:
    # of 3 mishaps among 4 + 4 episodes all are the first's: C(4,3) C(4,0) / C(8,3) = 4 / 56
    assert chance_of_more([True] * 3 + [False], [False] * 4) == 4 / 56
    # at least 2 of 3: (C(4,2) C(4,1) + C(4,3)) / C(8,3)
    assert chance_of_more([True] * 2 + [False] * 2, [True] + [False] * 3) == (24 + 4) / 56
    assert chance_of_more([False] * 4, [False] * 7) == 1
