from __future__ import annotations

from pathlib import Path

import pytest

from policyloop.config import load_settings
from policyloop.core.profile import Simulation
from policyloop.errors import ConfigError
from policyloop.robot.recorder import EpisodeSummary
from policyloop.sim.arena import Arena
from policyloop.sim.curriculum import Curriculum, CurriculumSettings, Level

SETTINGS = CurriculumSettings(episodes=4)
"""Up from a mean of 150 with at most one collision in five, down below 0 or above three in five."""


def ended(*scores: float, collided: int = 0) -> list[EpisodeSummary]:
    """Return episodes with these scores, of which the first so many collided."""
    return [
        EpisodeSummary(steps=300, score=score, collided=index < collided, distance_m=5.0, gated=0)
        for index, score in enumerate(scores)
    ]


class Way:
    """A robot's way through the levels, episode by episode."""

    def __init__(self, settings: CurriculumSettings = SETTINGS) -> None:
        self.curriculum = Curriculum(settings, Simulation(half_size_m=4.0))
        self.episodes: list[EpisodeSummary] = []
        self.worlds = [self.curriculum.world([])]

    def after(self, *episodes: EpisodeSummary) -> list[int]:
        levels = []
        for episode in episodes:
            self.episodes.append(episode)
            self.worlds.append(self.curriculum.world(self.episodes))
            levels.append(self.curriculum.level)
        return levels


def test_it_begins_with_the_sparsest_arena_of_the_robots_world() -> None:
    assert Way().worlds == [Simulation(obstacles=6, gap_m=1.5, half_size_m=4.0)]


def test_good_episodes_lead_one_level_up_and_count_once() -> None:
    way = Way()
    assert way.after(*ended(*[200] * 9)) == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert [(world.obstacles, world.gap_m) for world in way.worlds[3:6]] == [(6, 1.5), (12, 1.2), (12, 1.2)]


def test_the_mean_of_the_last_episodes_decides_by_hand() -> None:
    # 149.75 after four; the last four are 100, 200, 149, 151 then: exactly 150
    assert Way().after(*ended(150, 100, 200, 149, 151)) == [0, 0, 0, 0, 1]


def test_one_collision_in_four_is_too_many_to_go_on() -> None:
    assert Way().after(*ended(300, 300, 300, 300, 300, collided=1)) == [0, 0, 0, 0, 1]


def test_who_waits_does_not_go_on() -> None:
    assert Way().after(*ended(*[0] * 20)) == [0] * 20


def test_bad_scores_lead_back_down_and_never_below_the_first() -> None:
    way = Way()
    way.after(*ended(*[200] * 4))
    assert way.after(*ended(10, -20, 5, 4)) == [1, 1, 1, 0]  # -0.25
    assert way.after(*ended(*[-90] * 8)) == [0] * 8


def test_collisions_lead_back_down_whatever_the_score() -> None:
    way = Way()
    way.after(*ended(*[200] * 4))
    assert way.after(*ended(*[250] * 4, collided=2)) == [1] * 4
    assert way.after(*ended(*[250] * 3, collided=1)) == [1] * 3
    assert way.after(*ended(*[250] * 4, collided=4)) == [1, 1, 0, 0]  # three of the last four


def test_the_densest_level_is_kept() -> None:
    way = Way()
    assert way.after(*ended(*[300] * 40))[-1] == 4
    assert (way.worlds[-1].obstacles, way.worlds[-1].gap_m) == (30, 0.8)
    assert way.after(*ended(*[-50] * 4))[-1] == 3  # what went well before does not hide it


def test_equal_outcomes_lead_equal_ways() -> None:
    outcomes = ended(*[200] * 6, *[-10] * 9, *[180] * 9)
    assert Way().after(*outcomes) == Way().after(*outcomes)


def test_every_default_level_fits_into_the_default_arena() -> None:
    for level in CurriculumSettings().levels:
        for seed in range(5):
            place = Arena(seed, Simulation(obstacles=level.obstacles, gap_m=level.gap_m))
            assert len(place.solids) == 4 + level.obstacles


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"levels": ()}, "at least one level"),
        ({"episodes": 0}, "one episode"),
        ({"levels": (Level(obstacles=9, gap_m=1.0), Level(obstacles=8, gap_m=1.0))}, "no denser"),
        ({"levels": (Level(obstacles=9, gap_m=1.0), Level(obstacles=9, gap_m=1.1))}, "no denser"),
        ({"easier_score": 150.0}, "at the same time"),
        ({"harder_collisions": 0.6}, "at the same time"),
    ],
)
def test_a_curriculum_that_leads_nowhere_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CurriculumSettings(**wrong)


def test_it_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "levels.toml"
    path.write_text("episodes = 3\n[[levels]]\nobstacles = 2\ngap_m = 2.0\n[[levels]]\nobstacles = 40\ngap_m = 0.6\n")
    settings = load_settings(CurriculumSettings, path)
    assert settings.episodes == 3
    assert settings.levels == (Level(obstacles=2, gap_m=2.0), Level(obstacles=40, gap_m=0.6))
