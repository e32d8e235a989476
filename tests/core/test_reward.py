import numpy as np
import pytest

from policyloop.core.profile import load_profile
from policyloop.core.reward import REWARD_TERMS, Outcome, reward_terms, total_reward, validate_weights
from policyloop.errors import ConfigError

S5 = {"forward": 2.0, "spin": -0.5, "close": -5.0, "near": -1.0, "time": -0.01}


@pytest.mark.parametrize(
    ("linear", "angular", "distance", "expected"),
    [
        (0.5, 0.0, 1.0, 1.0 - 0.01),
        (0.5, -0.4, 1.0, 1.0 - 0.2 - 0.01),
        (0.5, 0.4, 1.0, 1.0 - 0.2 - 0.01),
        (-0.1, 1.2, 1.0, -0.2 - 0.6 - 0.01),
        (0.5, 0.0, 0.5, 1.0 - 0.01),
        (0.5, 0.0, 0.499, 1.0 - 1.0 - 0.01),
        (0.5, 0.0, 0.3, 1.0 - 1.0 - 0.01),
        (0.5, 0.0, 0.299, 1.0 - 5.0 - 0.01),
        (0.0, 0.0, 0.0, -5.0 - 0.01),
    ],
)
def test_reward_by_hand(linear, angular, distance, expected):
    assert total_reward(S5, Outcome(linear, angular, distance)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["rover", "rover-mini"])
def test_shipped_profiles_score_by_that_table(name):
    assert load_profile(name).reward == S5


def test_reward_of_a_proprioception_vector_takes_velocity_rate_and_distance(mini):
    proprio = np.array([0.25, -0.5, 9.0, 9.0, 9.0, 0.375], np.float32)
    assert total_reward(mini.reward, mini.outcome(proprio)) == pytest.approx(0.5 - 0.25 - 1.0 - 0.01, abs=1e-12)


def test_terms_carry_their_weight_and_add_up_to_the_total():
    outcome = Outcome(0.4, -0.2, 0.35)
    terms = reward_terms(S5, outcome)
    assert terms == pytest.approx({"forward": 0.8, "spin": -0.1, "close": 0.0, "near": -1.0, "time": -0.01})
    assert sum(terms.values()) == pytest.approx(total_reward(S5, outcome))


@pytest.mark.parametrize(("distance", "expected"), [(2.0, 0.0), (0.6, 0.0), (0.3, 0.5), (0.15, 0.75), (0.0, 1.0)])
def test_closeness_rises_linearly_from_60_cm_to_contact(distance, expected):
    assert REWARD_TERMS["closeness"](Outcome(0.0, 0.0, distance)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("linear", "angular", "expected"),
    [(0.0, 0.0, 1.0), (0.09, -0.29, 1.0), (-0.09, 0.29, 1.0), (0.0, 0.3, 0.0), (0.1, 0.0, 0.0), (-0.1, 0.0, 0.0)],
)
def test_idle_is_being_slow_and_not_turning_either(linear, angular, expected):
    assert REWARD_TERMS["idle"](Outcome(linear, angular, 1.0)) == expected


def test_collision_and_override_are_priced_only_when_they_happen():
    weights = {"collision": -80.0, "override": -2.0}
    assert total_reward(weights, Outcome(0.3, 0.3, 1.0)) == 0.0
    assert total_reward(weights, Outcome(0.3, 0.3, 1.0, collided=True, overridden=0.25)) == pytest.approx(-80.5)


def test_a_term_without_weight_costs_nothing():
    assert total_reward({}, Outcome(1.0, 1.0, 0.0, collided=True, overridden=1.0)) == 0.0


def test_an_unknown_term_is_named_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"\[reward\].*'speed'") as caught:
        validate_weights({"forward": 1.0, "speed": 1.0}, "[reward]")
    assert "forward" in caught.value.remedy
