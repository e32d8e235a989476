"""What a handful of episodes says: interquartile means, bootstrap intervals, who is better how often.

Definitions: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2108.13264), as
in their rliable. An interval is the percentile one of a stratified bootstrap: episodes are drawn with replacement
within their stratum, so that each kind of episode keeps its share. Equal arguments give equal intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "bootstrap_interval",
    "chance_of_more",
    "chance_of_more_paired",
    "difference_interval",
    "interquartile_mean",
    "mean",
    "probability_of_improvement",
]

_DRAWS = 4000
_SEED = 0

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Reduces the last axis."""


def mean(values: ArrayLike) -> Floats:
    """Return the mean of the last axis."""
    return np.mean(np.asarray(values, np.float64), axis=-1)


def interquartile_mean(values: ArrayLike) -> Floats:
    """Return the mean of the last axis without its lowest and its highest quarter (2108.13264, section 4.3)."""
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def bootstrap_interval(
    values: Sequence[float],
    statistic: Statistic = mean,
    *,
    confidence: float = 0.95,
    strata: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Return the interval of a statistic of one value per episode.

    Args:
        values: One per episode.
        statistic: Such as `mean` or `interquartile_mean`.
        confidence: Share of intervals that hold the true value.
        strata: The stratum of each episode; default: all are of one.
    """
    chosen = _resampled(_strata(values, strata), np.random.default_rng(_SEED))
    return _percentiles(statistic(np.asarray(values, np.float64)[chosen]), confidence)


def difference_interval(
    values: Sequence[float],
    others: Sequence[float],
    statistic: Statistic = mean,
    *,
    paired: bool,
    confidence: float = 0.95,
    strata: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Return the interval of `statistic(values) - statistic(others)`.

    Args:
        values: One per episode.
        others: What they are compared with.
        statistic: Such as `mean` or `interquartile_mean`.
        paired: Both are of the same arenas in the same order: what is luck of the arena cancels.
        confidence: Share of intervals that hold the true difference.
        strata: Of each pair; only for pairs.
    """
    rng = np.random.default_rng(_SEED)
    chosen = _resampled(_strata(values, strata), rng)
    others_chosen = chosen if paired else _resampled(_strata(others, None), rng)
    first, second = np.asarray(values, np.float64), np.asarray(others, np.float64)
    return _percentiles(statistic(first[chosen]) - statistic(second[others_chosen]), confidence)


def probability_of_improvement(values: Sequence[float], others: Sequence[float], *, paired: bool) -> float:
    """Return how probable it is that one of `values` is above one of `others`; a tie counts half.

    Over pairs this is the mean over arenas; otherwise the Mann-Whitney statistic (2108.13264, section 4.3).
    """
    first, second = np.asarray(values, np.float64), np.asarray(others, np.float64)
    difference = first - second if paired else first[:, None] - second[None, :]
    return float(0.5 + 0.5 * np.sign(difference).mean())


def chance_of_more_paired(happened: Sequence[bool], happened_to_other: Sequence[bool]) -> float:
    """Return the chance that something happens so much more often by luck alone, in pairs of episodes.

    The one-sided exact test of McNemar: pairs in which it happened to both or to neither say nothing, and of the
    n others each is a fair coin: P(X >= k) with X ~ Binomial(n, 1/2).
    """
    only = sum(a and not b for a, b in zip(happened, happened_to_other, strict=True))
    only_other = sum(b and not a for a, b in zip(happened, happened_to_other, strict=True))
    discordant = only + only_other
    return sum(math.comb(discordant, k) for k in range(only, discordant + 1)) / 2**discordant


def chance_of_more(happened: Sequence[bool], happened_to_other: Sequence[bool]) -> float:
    """Return the chance that something happens so much more often by luck alone, in episodes of different arenas.

    The one-sided exact test of Fisher: of all that happened, so many or more fall to the first (hypergeometric).
    """
    count, episodes, others = sum(happened), len(happened), len(happened_to_other)
    total = count + sum(happened_to_other)
    ways = sum(math.comb(episodes, k) * math.comb(others, total - k) for k in range(count, min(total, episodes) + 1))
    return ways / math.comb(episodes + others, total)


def _strata(values: Sequence[float], strata: Sequence[int] | None) -> NDArray[np.int64]:
    return np.zeros(len(values), np.int64) if strata is None else np.asarray(strata, np.int64)


def _resampled(strata: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return positions, drawn with replacement within each stratum, (draws, n)."""
    chosen = np.empty((_DRAWS, len(strata)), np.intp)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        chosen[:, members] = rng.choice(members, (_DRAWS, len(members)))
    return chosen


def _percentiles(draws: Floats, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)
