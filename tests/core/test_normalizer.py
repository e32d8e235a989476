import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyloop.core.normalizer import Normalizer, RunningStatistics
from policyloop.errors import IncompatibleError


def test_normalizer_by_hand():
    normalizer = Normalizer(mean=(1.0, -2.0), std=(2.0, 0.5))
    result = normalizer(np.array([[2.0, -2.0], [0.0, -1.0]], np.float64))
    assert result.dtype == np.float32
    assert result.tolist() == [[0.5, 0.0], [-0.5, 2.0]]


def test_normalizer_clips_both_ways():
    normalizer = Normalizer(mean=(0.0,), std=(0.1,), clip=3.0)
    assert normalizer(np.array([[100.0], [-100.0], [0.2]])).ravel().tolist() == pytest.approx([3.0, -3.0, 2.0])


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.0, 0.0), (1.0,)),
        ((np.nan,), (1.0,)),
        ((np.inf,), (1.0,)),
        ((0.0,), (0.0,)),
        ((0.0,), (-1.0,)),
        ((0.0,), (np.nan,)),
        ((0.0,), (np.inf,)),
    ],
)
def test_impossible_statistics_are_refused(mean, std):
    with pytest.raises(IncompatibleError, match="normalizer"):
        Normalizer(mean=mean, std=std)


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_statistics_of_batches_are_those_of_the_whole(seed, cuts):
    rng = np.random.default_rng(seed)
    data = rng.normal(rng.uniform(-50, 50, 3), rng.uniform(0.1, 10, 3), (200, 3)).astype(np.float32)
    statistics = RunningStatistics(3)
    for batch in np.split(data, sorted(cuts)):
        statistics.update(batch)
    assert statistics.count == 200
    np.testing.assert_allclose(statistics.mean, data.mean(axis=0, dtype=np.float64), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(statistics.variance, data.var(axis=0, dtype=np.float64), rtol=1e-9)


def test_variance_survives_a_large_offset():
    data = 1e6 + np.array([[0.0], [1.0], [2.0], [3.0]])
    statistics = RunningStatistics(1)
    for row in data:
        statistics.update(row[None])
    assert statistics.mean[0] == 1e6 + 1.5
    assert statistics.variance[0] == pytest.approx(1.25, rel=1e-9)


def test_an_empty_batch_changes_nothing():
    statistics = RunningStatistics(2)
    statistics.update(np.array([[1.0, 2.0], [3.0, 6.0]]))
    statistics.update(np.empty((0, 2)))
    assert (statistics.count, statistics.mean.tolist(), statistics.variance.tolist()) == (2, [2.0, 4.0], [1.0, 4.0])


def test_freeze_gives_zero_mean_and_unit_deviation():
    data = np.random.default_rng(0).normal([3.0, -7.0], [0.5, 20.0], (5000, 2))
    statistics = RunningStatistics(2)
    statistics.update(data)
    normalized = statistics.freeze(clip=100.0)(data)
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std(axis=0), 1, atol=1e-5)


def test_freeze_raises_small_deviations_to_the_floor():
    statistics = RunningStatistics(2)
    statistics.update(np.array([[4.0, 0.0], [4.0, 2.0]]))
    assert statistics.freeze(floor=0.25) == Normalizer(mean=(4.0, 1.0), std=(0.25, 1.0))


def test_freezing_before_any_data_is_harmless():
    assert RunningStatistics(1).freeze()(np.zeros(1)).tolist() == [0.0]
