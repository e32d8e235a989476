"""How often `policyloop promote` errs: real episodes, shuffled so that nobody is better, or better by a known amount.

    python bench/promotion.py DEMO... [--arenas 100] [--contests 200] [--gate full]

The policies of each demo (its first checkpoint and its newest six) drive the same arenas once. A contest draws some
of those arenas; in each of them the policies' episodes are dealt out anew, so that candidate and incumbent are
equally good and arenas are as easy or hard as they are. Then points are added to one candidate's returns.
`ranking` chooses among the newest six by 32 arenas, and looks at the chosen one's others.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from machine import machine

from policyloop.core.profile import load_profile
from policyloop.drives import drive_arenas
from policyloop.promotion import Contender, Drive, PromotionRule, judge, merit
from policyloop.statistics import interquartile_mean

ARENAS = 3_000_000
CHOSEN_BY = 32
POINTS = (0, 20, 40)
Table = list[tuple[Drive, ...]]
"""For each policy its drives of the same arenas."""


def deal(table: Table, arenas: int, rng: np.random.Generator) -> Table:
    """Draw arenas, and deal out each one's episodes anew."""
    rows = [[policy[arena] for policy in table] for arena in rng.integers(0, len(table[0]), arenas)]
    for row in rows:
        rng.shuffle(row)  # type: ignore[arg-type]
    return list(zip(*rows, strict=True))


def better_by(points: float, drives: tuple[Drive, ...]) -> tuple[Drive, ...]:
    """Return the same episodes with higher returns."""
    return tuple(msgspec.structs.replace(drive, score=drive.score + points) for drive in drives)


def promoted(table: Table, points: float, candidates: int, arenas: int, contests: int) -> tuple[float, float]:
    """Return how often the rule, and how often the higher mean, promotes somebody."""
    rng = np.random.default_rng(0)
    by_rule = by_mean = 0
    for _ in range(contests):
        dealt = deal(table, arenas, rng)[: candidates + 1]
        dealt[1] = better_by(points, dealt[1])
        means = [np.mean([drive.score for drive in drives]) for drives in dealt]
        contenders = [Contender(str(index), drives) for index, drives in enumerate(dealt)]
        by_rule += judge(contenders[0], contenders[1:], PromotionRule()).chosen is not None
        by_mean += max(means[1:]) > means[0]
    return by_rule / contests, by_mean / contests


def ranking(table: Table, score: Callable[[list[Drive]], float], contests: int) -> tuple[float, float]:
    """Return mean and collision rate, in arenas that it was not chosen by, of whom `score` puts first."""
    rng, found = np.random.default_rng(0), []
    for _ in range(contests):
        order = rng.permutation(len(table[0]))
        best = max(table[1:], key=lambda drives: score([drives[arena] for arena in order[:CHOSEN_BY]]))
        rest = [best[arena] for arena in order[CHOSEN_BY:]]
        found.append((np.mean([drive.score for drive in rest]), np.mean([drive.collided for drive in rest])))
    mean, collisions = np.mean(found, axis=0)
    return float(mean), float(collisions)


def main() -> None:
    """Print both tables for each demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--arenas", type=int, default=100)
    parser.add_argument("--contests", type=int, default=200)
    parser.add_argument("--gate", choices=("full", "limits"), default="full")
    parser.add_argument("--profile", default="rover-mini")
    arguments = parser.parse_args()
    print(machine())
    profile = load_profile(arguments.profile)
    for demo in arguments.demos:
        checkpoints = sorted((demo / "checkpoints").glob("[0-9]*"))
        chosen = [str(path) for path in (checkpoints[0], *checkpoints[1:][-6:])]
        arenas = range(ARENAS, ARENAS + arguments.arenas)
        table = drive_arenas(profile, chosen, arenas, arguments.gate, processes=os.cpu_count() or 1)
        print(f"{demo}: means {', '.join(f'{np.mean([drive.score for drive in row]):.0f}' for row in table)}")
        for candidates, episodes in ((1, 20), (1, 50), (len(table) - 1, 50)):
            shares = [promoted(table, points, candidates, episodes, arguments.contests) for points in POINTS]
            said = ", ".join(f"+{points} {rule:.1%}" for points, (rule, _) in zip(POINTS, shares, strict=True))
            print(
                f"  {candidates} candidates, {episodes} arenas: {said}; higher mean at +0: {shares[0][1]:.1%}",
                flush=True,
            )
        for name, score in (("mean less collisions", _merit), ("interquartile mean", _iqm)):
            mean, collisions = ranking(table, score, arguments.contests)
            print(f"  chosen by {name}: mean {mean:.1f}, collisions {collisions:.1%}")


def _merit(drives: list[Drive]) -> float:
    scores, collided = [drive.score for drive in drives], [drive.collided for drive in drives]
    return merit(float(np.mean(scores)), float(np.mean(collided)))


def _iqm(drives: list[Drive]) -> float:
    return float(interquartile_mean([drive.score for drive in drives]))


if __name__ == "__main__":
    main()
