"""Behaviour cloning: it learns what was shown, and what a mirror shows."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Step
from policyloop.learn.bc import BcSettings, clone, cloning_loss, draw_batch, mirrored, shifted
from policyloop.learn.demonstrations import Demonstrations
from policyloop.learn.inputs import learner_inputs
from policyloop.learn.networks import ActorCritic, make_network

CPU = torch.device("cpu")


def shown(profile: RobotProfile, count: int, seed: int = 0) -> Demonstrations:
    """Return states of a robot without camera, and actions that are a smooth function of them."""
    rng = np.random.default_rng(seed)
    proprio = rng.uniform(-1, 1, (count, profile.proprio_size)).astype(np.float32)
    shares = np.stack([0.8 * np.sin(2 * proprio[:, 0]), 0.5 * proprio[:, 1] * proprio[:, 2]], axis=1)
    actions = profile.action_center + profile.action_half_range * shares
    return Demonstrations({"proprio": proprio}, actions, np.full(count, -1))


def learn(
    network: ActorCritic, demonstrations: Demonstrations, profile: RobotProfile, **settings: float
) -> dict[str, float]:
    return clone(
        network,
        demonstrations,
        profile,
        msgspec.structs.replace(BcSettings(held_out=0.0), **settings),
        generator=torch.Generator().manual_seed(0),
        device=CPU,
    )


def proposed(network: ActorCritic, demonstrations: Demonstrations, profile: RobotProfile) -> np.ndarray:
    with torch.no_grad():
        mean = network.mean({name: torch.from_numpy(array) for name, array in demonstrations.features.items()})
    return profile.action_center + profile.action_half_range * torch.tanh(mean).numpy()


def test_a_tiny_set_is_learned_by_heart(blind: RobotProfile) -> None:
    torch.manual_seed(0)
    network, demonstrations = make_network("mlp", blind), shown(blind, 32)
    before = np.abs(proposed(network, demonstrations, blind) - demonstrations.actions).max()
    statistics = learn(network, demonstrations, blind, epochs=200, minibatch=16)
    assert before > 0.5
    assert np.abs(proposed(network, demonstrations, blind) - demonstrations.actions).max() < 0.15
    assert statistics["loss"] < 1e-3
    assert statistics["frames"] == 32
    assert statistics["steps"] == 400


def test_cloning_generalises_to_states_that_were_not_shown(blind: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network("mlp", blind)
    learn(network, shown(blind, 1000), blind, epochs=40)
    unseen = shown(blind, 100, seed=1)
    assert np.abs(proposed(network, unseen, blind) - unseen.actions).mean() < 0.1


def test_cloning_leaves_critic_and_exploration_alone(blind: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network("mlp", blind)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    learn(network, shown(blind, 32), blind, epochs=2)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("actor.") for name in changed)


def test_fewer_demonstrations_than_a_minibatch_are_enough(blind: RobotProfile) -> None:
    torch.manual_seed(0)
    assert learn(make_network("mlp", blind), shown(blind, 3), blind, epochs=5)["steps"] == 5


def test_equal_seeds_clone_equally(blind: RobotProfile) -> None:
    def result() -> Tensor:
        torch.manual_seed(0)
        network = make_network("mlp", blind)
        learn(network, shown(blind, 64), blind, epochs=3, minibatch=16)
        return torch.cat([tensor.flatten() for tensor in network.state_dict().values()])

    assert torch.equal(result(), result())


def test_progress_counts_every_step(blind: RobotProfile) -> None:
    seen: list[tuple[int, int]] = []
    clone(
        make_network("mlp", blind),
        shown(blind, 40),
        blind,
        BcSettings(epochs=3, minibatch=16),
        generator=torch.Generator().manual_seed(0),
        device=CPU,
        progress=lambda step, total, loss: seen.append((step, total)),
    )
    assert seen == [(step, 6) for step in range(1, 7)]


def test_the_cloning_loss_is_huber_by_hand(blind: RobotProfile) -> None:
    torch.manual_seed(0)
    network = make_network("mlp", blind)
    features = {"proprio": torch.zeros(1, blind.proprio_size)}
    with torch.no_grad():
        share = torch.tanh(network.mean(features))
    # beta 0.3: quadratic 0.1^2 / 0.6 below it, |0.5| - 0.15 above
    target = share + torch.tensor([[0.1, 0.5]])
    expected = (0.1**2 / 0.6 + 0.5 - 0.15) / 2
    assert cloning_loss(network, features, target, 0.3, blind).item() == pytest.approx(expected, rel=1e-4)


def test_a_linear_action_map_is_cloned_without_tanh_and_without_a_limit() -> None:
    lite3 = load_profile("lite3")
    torch.manual_seed(0)
    network = make_network("mlp", lite3)
    features = {"proprio": torch.zeros(1, lite3.proprio_size)}
    with torch.no_grad():
        wanted = network.mean(features) + 3.0  # three scales away: |3| - 0.15 for beta 0.3
    assert cloning_loss(network, features, wanted, 0.3, lite3).item() == pytest.approx(2.85, rel=1e-4)
    actions = lite3.action_center + 2.0 * lite3.action_scale
    shown = Demonstrations({"proprio": np.zeros((1, lite3.proprio_size), np.float32)}, actions[None], np.array([-1]))
    drawn = draw_batch(shown, lite3, 1, mirror=False, generator=torch.Generator(), device=CPU)[1]
    assert torch.allclose(drawn, torch.full((1, 12), 2.0), atol=1e-5)


# -- the mirror -------------------------------------------------------------------------------


@pytest.fixture
def scene(mini: RobotProfile, make_step: Callable[..., Step]) -> dict[str, np.ndarray]:
    return dict(make_step(mini, 3).observation)


def as_batch(mini: RobotProfile, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    inputs = learner_inputs(mini, mini.nominal_normalizer, arrays)
    return {name: torch.from_numpy(array)[None] for name, array in inputs.items()}


def test_twice_mirrored_is_the_same(mini: RobotProfile, scene: dict[str, np.ndarray]) -> None:
    features, shares = as_batch(mini, scene), torch.tensor([[0.4, -0.3]])
    twice, shares_twice = mirrored(mini, *mirrored(mini, features, shares))
    assert twice.keys() == features.keys()
    for name, tensor in features.items():
        assert torch.equal(twice[name], tensor)
    assert torch.equal(shares_twice, shares)


def test_mirrored_inputs_are_those_of_the_mirrored_scene(mini: RobotProfile, scene: dict[str, np.ndarray]) -> None:
    proprio = scene["proprio"].copy()
    for name in ("angular_vel", "roll"):
        proprio[mini.proprio_index(name)] *= -1
    other = {"rgb": scene["rgb"][:, ::-1], "depth": scene["depth"][:, ::-1].copy(), "proprio": proprio}
    features, _ = mirrored(mini, as_batch(mini, scene), torch.zeros(1, 2))
    expected = as_batch(mini, other)
    assert features.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(features[name], tensor), name


def test_the_mirror_turns_the_other_way_at_the_same_speed(mini: RobotProfile, scene: dict[str, np.ndarray]) -> None:
    _, shares = mirrored(mini, as_batch(mini, scene), torch.tensor([[0.4, -0.3], [-0.2, 0.7]]))
    assert torch.allclose(shares, torch.tensor([[0.4, 0.3], [-0.2, -0.7]]))


def test_the_mirror_leaves_its_argument_alone(mini: RobotProfile, scene: dict[str, np.ndarray]) -> None:
    features = as_batch(mini, scene)
    before = {name: tensor.clone() for name, tensor in features.items()}
    mirrored(mini, features, torch.ones(1, 2))
    assert all(torch.equal(features[name], tensor) for name, tensor in before.items())


def test_a_robot_that_does_not_measure_its_roll_is_mirrored_too(
    mini: RobotProfile, make_step: Callable[..., Step]
) -> None:
    level = msgspec.structs.replace(mini, proprio=tuple(q for q in mini.proprio if q.name != "roll"))
    features = as_batch(level, dict(make_step(level).observation))
    turned, _ = mirrored(level, features, torch.zeros(1, 2))
    index = level.proprio_index("angular_vel")
    assert torch.equal(turned["proprio"][:, index], -features["proprio"][:, index])


def pictures(mini: RobotProfile, count: int) -> Demonstrations:
    """Return scenes with something near on the left, at one height each; the teacher turns right."""
    rng = np.random.default_rng(0)
    inputs, actions = [], []
    for _ in range(count):
        depth = np.full((36, 64), 4000, np.uint16)
        row, column = rng.integers(4, 20), rng.integers(0, 12)
        depth[row : row + 12, column : column + 12] = 400
        arrays = {
            "rgb": np.full((36, 64, 3), 100, np.uint8),
            "depth": depth,
            "proprio": np.array([0.3, 0.0, 0.0, 0.0, 9.81, 1.0], np.float32),
        }
        inputs.append(learner_inputs(mini, mini.nominal_normalizer, arrays))
        actions.append((0.25, -0.8))
    stacked = {name: np.stack([entry[name] for entry in inputs]) for name in inputs[0]}
    return Demonstrations(stacked, np.array(actions, np.float32), np.full(len(actions), -1))


@pytest.mark.parametrize("mirror", [True, False])
def test_with_the_mirror_a_right_turn_also_teaches_the_left_turn(mini: RobotProfile, mirror: bool) -> None:
    torch.manual_seed(0)
    network, demonstrations = make_network("spatial", mini), pictures(mini, 32)
    learn(network, demonstrations, mini, epochs=60, minibatch=16, mirror=mirror)
    features = {name: torch.from_numpy(array) for name, array in demonstrations.features.items()}
    other, _ = mirrored(mini, features, torch.zeros(32, 2))
    with torch.no_grad():
        turn, other_turn = torch.tanh(network.mean(features))[:, 1], torch.tanh(network.mean(other))[:, 1]
    assert (turn < -0.3).all()
    assert (other_turn > 0.3).all() if mirror else (other_turn < 0).all()


@pytest.mark.parametrize("mirror", [True, False])
def test_a_drawn_batch_holds_demonstrations_and_their_mirror_images(mini: RobotProfile, mirror: bool) -> None:
    demonstrations, generator = pictures(mini, 16), torch.Generator().manual_seed(0)
    turns = set()
    for _ in range(20):
        features, shares = draw_batch(demonstrations, mini, 4, mirror=mirror, generator=generator, device=CPU)
        assert features["rgb"].shape == (4, 3, 36, 64)
        left = features["depth"][..., :32].float().mean() > features["depth"][..., 32:].float().mean()
        assert (shares[:, 1] < 0).all() if left else (shares[:, 1] > 0).all()
        turns.add(bool(left))
    assert turns == ({True, False} if mirror else {True})
    assert shares[:, 1].abs().tolist() == pytest.approx([0.8 / 1.2] * 4)


# -- episodes, validation, smoothness, shifted pictures ---------------------------------------


def chained(profile: RobotProfile, lengths: list[int], seed: int = 0) -> Demonstrations:
    """Return demonstrations of episodes of these lengths."""
    rows = shown(profile, sum(lengths), seed)
    ends = np.cumsum(lengths) - 1
    following = np.arange(1, len(rows) + 1)
    following[ends] = -1
    return msgspec.structs.replace(rows, following=following)


def test_rows_of_one_episode_have_one_number_also_where_robots_take_turns(blind: RobotProfile) -> None:
    rows = msgspec.structs.replace(shown(blind, 6), following=np.array([2, 3, 4, -1, -1, -1]))
    assert rows.episodes().tolist() == [0, 1, 0, 1, 0, 2]


def test_joined_and_shortened_demonstrations_keep_their_chains(blind: RobotProfile) -> None:
    both = chained(blind, [3]) + chained(blind, [2])
    assert both.following.tolist() == [1, 2, -1, 4, -1]
    assert both.newest(4).following.tolist() == [1, -1, 3, -1]


def test_whole_episodes_are_held_out_and_never_learned_from(blind: RobotProfile) -> None:
    rows = chained(blind, [40, 30, 20, 10])
    torch.manual_seed(0)
    network = make_network("mlp", blind)
    wrong = rows.actions.copy()
    wrong[70:] *= -1  # the last two episodes contradict the first
    liars = msgspec.structs.replace(rows, actions=wrong)
    statistics = learn(network, liars, blind, epochs=100, minibatch=16, held_out=0.35)
    assert np.abs(proposed(network, liars, blind)[:70] - wrong[:70]).mean() < 0.1
    assert statistics["held_out_loss"] > 10 * statistics["loss"]
    assert statistics["steps"] == 100 * (70 // 16)


def test_no_episode_is_short_enough_to_be_held_out(blind: RobotProfile) -> None:
    torch.manual_seed(0)
    statistics = learn(make_network("mlp", blind), chained(blind, [40, 40]), blind, epochs=1, held_out=0.1)
    assert "held_out_loss" not in statistics
    assert statistics["frames"] == 80


def test_smoothness_draws_consecutive_proposals_together(blind: RobotProfile) -> None:
    rows = chained(blind, [200])
    jumps = []
    for smoothness in (0.0, 3.0):
        torch.manual_seed(0)
        network = make_network("mlp", blind)
        learn(network, rows, blind, epochs=60, minibatch=32, smoothness=smoothness)
        jumps.append(np.abs(np.diff(proposed(network, rows, blind), axis=0)).mean())
    assert jumps[1] < 0.5 * jumps[0]


def test_shifted_pictures_by_hand() -> None:
    picture = torch.arange(12, dtype=torch.uint8).reshape(1, 1, 3, 4)
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(50):
        moved = shifted({"depth": picture, "proprio": torch.ones(1, 2)}, 1, generator)
        assert torch.equal(moved["proprio"], torch.ones(1, 2))
        seen.add(tuple(moved["depth"].flatten().tolist()))
    down_and_right = (0, 0, 1, 2, 0, 0, 1, 2, 4, 4, 5, 6)
    assert down_and_right in seen
    assert tuple(range(12)) in seen
    assert len(seen) == 9


def test_rgb_and_depth_move_together(mini: RobotProfile) -> None:
    planes = torch.arange(64 * 36).reshape(1, 1, 36, 64)
    moved = shifted({"rgb": planes.expand(1, 3, -1, -1), "depth": planes}, 3, torch.Generator().manual_seed(4))
    assert torch.equal(moved["rgb"][:, :1], moved["depth"])
    assert not torch.equal(moved["depth"], planes)
