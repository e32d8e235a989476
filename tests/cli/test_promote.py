"""`policyloop promote`: who becomes a store's current version, who does not, and what is said about it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import SIGNATURE_NAME, KeyRing
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.files import write_directory
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Observation, Step
from policyloop.learn.networks import make_network
from policyloop.link.journal import Journal
from policyloop.runtime.policy import Policy
from policyloop.wire.codec import encode_step

Call = Callable[..., tuple[int, str, str]]

ARENAS = ("--episodes", 12, "--processes", 1, "--gate", "limits")


@pytest.fixture(scope="module")
def quick_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small rover with episodes of two and a half seconds."""
    shipped = Path(__file__).parents[2] / "src" / "policyloop" / "profiles" / "rover-mini.toml"
    path = tmp_path_factory.mktemp("profile") / "rover-mini.toml"
    path.write_text(shipped.read_text().replace("max_steps = 300", "max_steps = 25"))
    return path


@pytest.fixture(scope="module")
def quick(quick_file: Path) -> RobotProfile:
    return load_profile(quick_file)


@pytest.fixture(scope="module")
def policies(quick: RobotProfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of policies that drive straight on at one speed each: `slow`, `fast` and `faster`."""
    folder = tmp_path_factory.mktemp("policies")
    low, high = quick.action[0].low, quick.action[0].high
    for version, (name, speed_mps) in enumerate({"slow": 0.05, "fast": 0.2, "faster": 0.3}.items(), 1):
        torch.manual_seed(0)
        network = make_network("spatial", quick)
        head = network.actor["head"][-1]
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.tensor([math.atanh(2 * (speed_mps - low) / (high - low) - 1), 0.0]))
        bundle = export_bundle(
            network,
            quick,
            quick.nominal_normalizer,
            network_name="spatial",
            version=version,
            noise_hold_ticks=1,
            observations=probe_features(quick, 1),
            training={},
        )
        write_directory(folder / name, bundle.contents)
    return folder


@pytest.fixture
def store(policies: Path, quick: RobotProfile, tmp_path: Path) -> Store:
    """A store that drives `slow`."""
    made, opened = Store(tmp_path / "store"), open_bundle(policies / "slow", quick)
    made.activate(made.add(Bundle(opened.manifest, opened.files)))
    return made


@pytest.fixture
def promote(policyloop: Call, store: Store, quick_file: Path) -> Call:
    """Return `promote(*arguments)`: the command, for this store and robot."""

    def call(*arguments: object) -> tuple[int, str, str]:
        return policyloop("promote", *arguments, "--store", store.directory, "--profile", quick_file)

    return call


def test_who_is_clearly_better_becomes_current(promote: Call, store: Store, policies: Path) -> None:
    code, out, err = promote(policies / "fast", *ARENAS, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    slow, fast = report["policies"]
    assert (slow["verdict"], fast["verdict"]) == ("incumbent", "better")
    assert report["chosen"] == fast["policy"] == str(policies / "fast")
    # 0.15 m/s more for two seconds and a half at 2 per m/s and tick: 7.5, less what it costs to come close to things
    assert 3 < fast["difference_ci"][0] <= fast["difference"] <= 7.5
    assert fast["probability_of_improvement"] > 0.5
    assert (fast["episodes"], fast["collision_rate"]) == (12, 0)
    assert store.current is not None
    assert store.current.name == report["promoted"]
    assert store.current.name.startswith("000002-")
    assert store.state_of(store.current) == "active"


def test_who_is_not_better_changes_nothing(promote: Call, store: Store, policies: Path) -> None:
    before = store.current
    code, out, err = promote(policies / "slow", "--incumbent", policies / "fast", *ARENAS)
    assert code == 1
    assert "no candidate is clearly better" in err
    assert "not better: it may be no better" in out
    assert (store.current, len(store.versions())) == (before, 1)


def test_a_dry_run_changes_nothing_and_takes_bare_networks(
    promote: Call, store: Store, policies: Path, tmp_path: Path
) -> None:
    network = tmp_path / "fast.onnx"
    network.write_bytes((policies / "fast" / "policy.onnx").read_bytes())
    before = store.current
    code, out, err = promote(network, *ARENAS, "--dry-run")
    assert (code, "would be promoted" in out) == (0, True), err
    assert store.current == before
    code, out, err = promote(network, *ARENAS)
    assert (code, out, "is no bundle" in err) == (2, "", True)


def test_a_first_policy_needs_somebody_to_beat(
    policyloop: Call, policies: Path, quick_file: Path, tmp_path: Path
) -> None:
    first = ["promote", policies / "fast", "--store", tmp_path / "empty", "--profile", quick_file, *ARENAS]
    code, _, err = policyloop(*first)
    assert (code, "--incumbent random" in err) == (2, True)
    assert not (tmp_path / "empty").exists()
    code, out, err = policyloop(*first, "--incumbent", policies / "slow")
    assert (code, "is current" in out) == (0, True), err


def test_a_version_that_failed_or_is_too_old_does_not_even_drive(
    promote: Call, store: Store, policies: Path, quick: RobotProfile
) -> None:
    opened = open_bundle(policies / "fast", quick)
    fast = store.add(Bundle(opened.manifest, opened.files))
    store.mark(fast, "bad", "it fell off the table")
    code, out, err = promote(policies / "fast", *ARENAS)
    assert (code, out, "it fell off the table" in err) == (6, "", True)
    store.add(Bundle(opened.manifest, opened.files).revised(version=9))
    code, out, err = promote(policies / "faster", *ARENAS)
    assert (code, out, "version 3 is older than 9" in err) == (5, "", True)


def test_what_is_promoted_is_signed(
    promote: Call, policyloop: Call, store: Store, policies: Path, quick: RobotProfile, tmp_path: Path
) -> None:
    keys, trusted = tmp_path / "keys", KeyRing(tmp_path / "trusted")
    _, public, _ = policyloop("keys", "new", "ada", "--signing", "--keys", keys)
    trusted.allow("ada", public.strip())
    assert promote(policies / "fast", *ARENAS, "--sign", keys)[0] == 0
    assert store.current is not None
    assert open_bundle(store.current, quick, trusted).signer == "ada"


def test_a_signature_that_a_candidate_came_with_is_kept(
    promote: Call, policyloop: Call, store: Store, policies: Path, quick: RobotProfile, tmp_path: Path
) -> None:
    keys, trusted = tmp_path / "keys", KeyRing(tmp_path / "trusted")
    _, public, _ = policyloop("keys", "new", "ada", "--signing", "--keys", keys)
    trusted.allow("ada", public.strip())
    signed = policies / "fast" / SIGNATURE_NAME
    assert policyloop("bundle", "sign", policies / "fast", "--keys", keys)[0] == 0
    try:
        assert promote(policies / "fast", *ARENAS)[0] == 0
    finally:
        signed.unlink()
    assert store.current is not None
    assert open_bundle(store.current, quick, trusted).signer == "ada"


Record = Callable[..., None]


@pytest.fixture
def record(make_step: Callable[..., Step]) -> Record:
    """Return `record(journal, bundle, episodes, hits=0)`: ten steps each, without exploration.

    Every step earns as many points as the bundle's version has; the first episodes end by a collision.
    """

    def write(journal: Journal, bundle: Path, episodes: int, hits: int = 0) -> None:
        profile, policy = journal.profile, Policy.load(bundle, journal.profile)
        observation = make_step(profile).observation
        observation["proprio"][profile.proprio_index("min_forward_dist")] = 1.0
        action = policy.act(Observation(observation, 0))
        policy.close()
        for episode in range(episodes):
            for index in range(10):
                step = make_step(
                    profile,
                    10 * episode + index,
                    episode,
                    index,
                    robot=bundle.name,
                    action=action,
                    observation=observation,
                    reward_terms={"forward": policy.version + 0.01 * (episode % 3)},
                    terminated=index == 9 and episode < hits,
                    truncated=index == 9 and episode >= hits,
                )
                journal.append(encode_step(step, profile))

    return write


@pytest.mark.parametrize(("episodes", "code"), [(10, 0), (9, 1)])
def test_recorded_episodes_decide_if_there_are_ten(
    episodes: int,
    code: int,
    promote: Call,
    store: Store,
    policies: Path,
    quick: RobotProfile,
    record: Record,
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "journal", quick, writable=True)
    record(journal, policies / "slow", 12)
    record(journal, policies / "fast", episodes)
    journal.close()
    ended, out, err = promote(policies / "fast", "--journal", tmp_path / "journal", "--json")
    assert ended == code, err
    report = json.loads(out)
    assert report["arena_seed"] is None
    assert [found["episodes"] for found in report["policies"]] == [12, episodes]
    assert [found["clearance_m"] for found in report["policies"]] == [1.0, 1.0]
    assert report["policies"][1]["verdict"] == ("better" if code == 0 else "too few")
    assert store.current is not None
    assert store.current.name.startswith("000002-" if code == 0 else "000001-")


def test_who_scores_better_and_touches_things_is_refused_for_safety(
    promote: Call, store: Store, policies: Path, quick: RobotProfile, record: Record, tmp_path: Path
) -> None:
    before = store.current
    journal = Journal(tmp_path / "journal", quick, writable=True)
    record(journal, policies / "slow", 12)
    record(journal, policies / "fast", 12, hits=6)
    journal.close()
    code, out, err = promote(policies / "fast", "--journal", tmp_path / "journal")
    assert (code, "who scores better is less safe" in err) == (6, True)
    assert "unsafe: a collision or fall in 50% of its episodes, of the incumbent's in 0%" in out
    assert (store.current, len(store.versions())) == (before, 1)


def test_a_script_cannot_be_judged_by_what_was_recorded(
    promote: Call, policies: Path, quick: RobotProfile, tmp_path: Path
) -> None:
    Journal(tmp_path / "journal", quick, writable=True).close()
    code, _, err = promote(policies / "fast", "--incumbent", "random", "--journal", tmp_path / "journal")
    assert (code, "random is no bundle" in err) == (2, True)
