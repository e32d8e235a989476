"""The rule, on episodes made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from policyloop.promotion import Contender, Drive, Judgement, PromotionRule, Standing, judge, merit

RULE = PromotionRule()
UNPAIRED = PromotionRule(paired=False)


def drives(
    scores: Sequence[float],
    *,
    hits: int = 0,
    taken_over: int = 0,
    gated: int = 0,
    clearance_m: float | None = None,
) -> tuple[Drive, ...]:
    """Return episodes with these scores, the first ones with mishaps."""
    return tuple(
        Drive(
            score=score,
            collided=index < hits,
            distance_m=10.0,
            gated=gated,
            taken_over=index < taken_over,
            clearance_m=clearance_m,
        )
        for index, score in enumerate(scores)
    )


SCORES = tuple(np.random.default_rng(0).normal(200, 50, 20).tolist())
HIGHER = tuple(score + 10 + index % 3 for index, score in enumerate(SCORES))


def judged(candidate: tuple[Drive, ...], incumbent: tuple[Drive, ...], rule: PromotionRule = RULE) -> Judgement:
    return judge(Contender("old", incumbent), [Contender("new", candidate)], rule)


def standing(candidate: tuple[Drive, ...], incumbent: tuple[Drive, ...], rule: PromotionRule = RULE) -> Standing:
    return judged(candidate, incumbent, rule).standings[1]


def test_a_policy_that_does_better_in_every_arena_is_promoted() -> None:
    result = judged(drives(HIGHER), drives(SCORES))
    assert (result.chosen, result.refused_for_safety) == ("new", False)
    old, new = result.standings
    assert (old.verdict, old.difference, old.difference_ci) == ("incumbent", None, None)
    assert new.verdict == "better"
    # between 10 and 12 more in each arena, though arenas differ by fifty
    assert 10 <= new.difference_ci[0] <= new.difference <= new.difference_ci[1] <= 12
    assert new.probability_of_improvement == 1
    assert "better by" in new.reason


def test_the_numbers_of_a_standing_by_hand() -> None:
    scores = [0.0] * 3 + [10.0] * 3 + [20.0] * 3 + [30.0] * 3
    new = standing(drives(scores, hits=3, taken_over=6, gated=4, clearance_m=0.5), drives(scores))
    assert (new.episodes, new.return_mean, new.return_iqm) == (12, 15.0, 15.0)
    assert (new.collision_rate, new.taken_over_rate, new.interventions) == (0.25, 0.5, 4.0)
    assert (new.distance_m, new.clearance_m) == (10.0, 0.5)
    assert (new.difference, new.probability_of_improvement) == (0.0, 0.5)


def test_the_same_episodes_promote_nobody() -> None:
    result = judged(drives(SCORES), drives(SCORES))
    assert (result.chosen, result.refused_for_safety) == (None, False)
    assert result.standings[1].verdict == "not better"
    assert "it may be no better" in result.standings[1].reason


def test_ten_more_is_nothing_where_arenas_differ_and_are_not_the_same() -> None:
    assert judged(drives(HIGHER[::-1]), drives(SCORES), UNPAIRED).chosen is None
    assert judged(drives([score + 150 for score in SCORES[::-1]]), drives(SCORES), UNPAIRED).chosen == "new"


def test_recorded_episodes_need_not_be_equally_many() -> None:
    assert judged(drives([score + 150 for score in SCORES[:12]]), drives(SCORES), UNPAIRED).chosen == "new"


def test_bad_episodes_that_an_interquartile_mean_does_not_see_count() -> None:
    others = SCORES + SCORES
    new = standing(drives([*(score + 60 for score in others[:-4]), *[-3000.0] * 4]), drives(others))
    assert new.difference_ci[0] > 0
    assert new.verdict == "not better"
    assert "its worst episodes are bad ones" in new.reason


@pytest.mark.parametrize(
    ("mishaps", "said"),
    [
        pytest.param({"hits": 5}, "a collision or fall in 25% of its episodes, of the incumbent's in 0%", id="hits"),
        pytest.param({"taken_over": 5}, "a human took over in 25%", id="take-overs"),
        pytest.param({"gated": 7}, "the gate acts in 7.0 steps of an episode, not in 0.0", id="gate"),
        pytest.param({"clearance_m": 0.2}, "it comes as close as 0.20 m to things, not 0.50 m", id="clearance"),
    ],
)
@pytest.mark.parametrize("rule", [RULE, UNPAIRED], ids=["paired", "unpaired"])
def test_a_better_score_does_not_buy_less_safety(mishaps: dict[str, float], said: str, rule: PromotionRule) -> None:
    candidate = drives([score + 150 for score in SCORES], **{"clearance_m": 0.5, **mishaps})
    result = judged(candidate, drives(SCORES, clearance_m=0.5), rule)
    assert (result.chosen, result.refused_for_safety) == (None, True)
    assert result.standings[1].verdict == "unsafe"
    assert said in result.standings[1].reason


@pytest.mark.parametrize(
    "mishaps",
    [{"hits": 3}, {"taken_over": 3}, {"gated": 1}, {"clearance_m": 0.46}],
    ids=lambda found: next(iter(found)),
)
def test_what_luck_or_the_allowance_explains_is_allowed(mishaps: dict[str, float]) -> None:
    candidate = drives([score + 150 for score in SCORES], **{"clearance_m": 0.5, **mishaps})
    assert judged(candidate, drives(SCORES, clearance_m=0.5)).chosen == "new"


def test_as_many_collisions_as_the_incumbent_are_no_reason_to_refuse() -> None:
    assert judged(drives(HIGHER, hits=8), drives(SCORES, hits=8)).chosen == "new"


def test_who_is_neither_better_nor_safe_is_not_refused_for_safety() -> None:
    result = judged(drives(SCORES, hits=9), drives(SCORES))
    assert (result.standings[1].verdict, result.refused_for_safety) == ("not better", False)
    assert "a collision or fall" in result.standings[1].reason


@pytest.mark.parametrize(("new", "old"), [(9, 20), (20, 9), (1, 20), (0, 20)])
def test_too_few_episodes_say_nothing(new: int, old: int) -> None:
    result = judged(drives(HIGHER[:new]), drives(SCORES[:old]), UNPAIRED)
    assert (result.chosen, result.refused_for_safety) == (None, False)
    assert result.standings[1].verdict == "too few"
    assert f"drove {min(new, old)} episodes, 10 are needed" in result.standings[1].reason


def test_of_several_the_best_is_chosen() -> None:
    candidates = [
        Contender("worse", drives([score - 20 for score in SCORES])),
        Contender("best", drives([score + 40 for score in HIGHER])),
        Contender("unsafe", drives([score + 90 for score in HIGHER], hits=9)),
        Contender("good", drives(HIGHER)),
    ]
    result = judge(Contender("old", drives(SCORES)), candidates, RULE)
    assert result.chosen == "best"
    assert not result.refused_for_safety
    assert [found.verdict for found in result.standings] == ["incumbent", "not better", "better", "unsafe", "better"]


def test_among_clearly_better_ones_the_worst_episodes_decide() -> None:
    steady = [score + 60 for score in SCORES]
    brilliant = [score + 80 for score in SCORES[1:]]
    result = judge(
        Contender("old", drives(SCORES)),
        [Contender("steady", drives(steady)), Contender("brilliant", drives([-300.0, *brilliant]))],
        RULE,
    )
    assert [found.verdict for found in result.standings[1:]] == ["better", "better"]
    assert result.standings[2].return_iqm > result.standings[1].return_iqm
    assert result.chosen == "steady"


def test_a_collision_has_its_price() -> None:
    assert merit(200.0, 0.25) == 175.0
    assert merit(191.0, 0.0) > merit(200.0, 0.1)


def test_the_more_candidates_the_clearer_one_must_be() -> None:
    rng = np.random.default_rng(3)
    lucky = Contender("lucky", drives([score + 12 + rng.normal(0, 20) for score in SCORES]))
    poor = [Contender(f"poor-{index}", drives([score - 300 for score in SCORES])) for index in range(20)]
    old = Contender("old", drives(SCORES))
    alone, among_many = judge(old, [lucky], RULE).standings[1], judge(old, [lucky, *poor], RULE).standings[1]
    assert alone.difference == among_many.difference
    assert among_many.difference_ci[0] < alone.difference_ci[0]
    assert among_many.difference_ci[1] > alone.difference_ci[1]


def test_a_judgement_survives_json() -> None:
    result = judged(drives(HIGHER), drives(SCORES))
    assert msgspec.json.decode(msgspec.json.encode(result), type=Judgement) == result
