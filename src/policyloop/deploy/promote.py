"""Let candidates and the incumbent of a store drive, or read how they drove, and promote whoever should drive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, Signer
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.core.files import read_file, write_file
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.drives import PROMOTION_ARENAS, drive_arenas, recorded_drives
from policyloop.errors import StorageError, UsageError
from policyloop.learn.shipping import deliver
from policyloop.link.journal import Journal
from policyloop.promotion import Contender, PromotionRule, Standing, judge
from policyloop.runtime.locate import bundle_directory, find_policy, profile_name
from policyloop.safety.gate import GateMode

__all__ = ["Contest", "PromotionReport", "Proposal", "enter", "judge_recorded", "judge_simulated", "put_in_charge"]

_SCRIPTED = ("scripted", "random")
"""Drivers that can be an incumbent where no policy is yet."""


class Proposal(msgspec.Struct, frozen=True):
    """A policy that may drive.

    Attributes:
        name: As a person gave it.
        source: Its bundle's directory, an `.onnx` file, or a driver's name.
        bundle: Verified; None for whatever is no bundle.
        digest: Names it in every step that it drives; empty for whatever is no bundle.
    """

    name: str
    source: str
    bundle: Bundle | None = None
    digest: str = ""


class Contest(msgspec.Struct, frozen=True):
    """Who stands against whom, on which robot."""

    profile: RobotProfile
    incumbent: Proposal
    candidates: tuple[Proposal, ...]


class PromotionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `policyloop promote` found and did.

    Attributes:
        arena_seed: Of the first arena; None if recorded episodes were judged.
        chosen: The candidate that should drive; None = the incumbent stays.
        refused_for_safety: The incumbent stays though a candidate scores better.
        promoted: The store's current version since then; None = nothing was changed.
    """

    profile: str
    gate: str
    arena_seed: int | None
    confidence: float
    policies: tuple[Standing, ...]
    chosen: str | None
    refused_for_safety: bool
    promoted: str | None = None


def enter(candidates: Sequence[str], store: Store, incumbent: str = "", profile: str = "") -> Contest:
    """Open and verify everybody before anybody drives.

    Args:
        candidates: Paths, as `evaluate` takes them.
        store: Whose current version is the incumbent, unless another is named.
        incumbent: A path, `scripted` or `random`; empty = the store's.
        profile: Name or path; empty = the candidates'.

    Raises:
        UsageError: The store has no current version and no incumbent is named; or a candidate is entered twice.
        PolicyloopError: A policy is missing, damaged or another robot's; or is bad, or too old, in this store.
    """
    if len(set(candidates)) < len(candidates):
        raise UsageError("a candidate is named twice", "name each once")
    current = store.current
    if not incumbent and current is None:
        raise UsageError(
            f"store {store.directory} has no current version to compare with",
            "name one: --incumbent random for a first policy, scripted, or a path",
        )
    loaded = load_profile(profile or profile_name(bundle_directory(find_policy(Path(candidates[0])))))
    entered = tuple(_open(name, loaded) for name in candidates)
    for proposal in entered:
        if proposal.bundle is not None:
            name = store.name_of(proposal.bundle.manifest.version, proposal.bundle.digest)
            store.check_not_bad(name)
            store.check_newer(proposal.bundle.manifest.version, name)
    return Contest(loaded, _open(incumbent or str(current), loaded), entered)


def _open(name: str, profile: RobotProfile) -> Proposal:
    if name in _SCRIPTED:
        return Proposal(name, name)
    found = bundle_directory(find_policy(Path(name)))
    if found.suffix == ".onnx":
        return Proposal(name, str(found))
    opened = open_bundle(found, profile)
    return Proposal(name, str(found), Bundle(opened.manifest, opened.files), opened.digest)


def judge_simulated(
    contest: Contest,
    rule: PromotionRule,
    *,
    episodes: int,
    arena_seed: int = PROMOTION_ARENAS,
    gate: GateMode = "full",
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> PromotionReport:
    """Let everybody drive the same arenas, and judge."""
    everybody = (contest.incumbent, *contest.candidates)
    arenas = range(arena_seed, arena_seed + episodes)
    sources = [proposal.source for proposal in everybody]
    drives = drive_arenas(contest.profile, sources, arenas, gate, processes=processes, progress=progress)
    contenders = [Contender(proposal.name, driven) for proposal, driven in zip(everybody, drives, strict=True)]
    return _report(contest, contenders, rule, gate, arena_seed)


def judge_recorded(contest: Contest, rule: PromotionRule, journal: Journal) -> PromotionReport:
    """Judge by the episodes in a journal that everybody drove without exploration.

    Raises:
        UsageError: Somebody is no bundle: recorded steps name bundles.
    """
    everybody = (contest.incumbent, *contest.candidates)
    for proposal in everybody:
        if not proposal.digest:
            raise UsageError(
                f"{proposal.name} is no bundle, and recorded steps name bundles", "give a bundle or a checkpoint"
            )
    drives = recorded_drives(journal, {proposal.digest for proposal in everybody})
    contenders = [Contender(proposal.name, drives[proposal.digest]) for proposal in everybody]
    return _report(contest, contenders, msgspec.structs.replace(rule, paired=False), "as driven", None)


def _report(
    contest: Contest, contenders: Sequence[Contender], rule: PromotionRule, gate: str, arena_seed: int | None
) -> PromotionReport:
    judgement = judge(contenders[0], contenders[1:], rule)
    return PromotionReport(
        profile=contest.profile.name,
        gate=gate,
        arena_seed=arena_seed,
        confidence=rule.confidence,
        policies=judgement.standings,
        chosen=judgement.chosen,
        refused_for_safety=judgement.refused_for_safety,
    )


def put_in_charge(proposal: Proposal, store: Store, signer: Signer | None) -> Path:
    """Make a policy the store's current version; signatures that it came with are kept. Returns where it is.

    Raises:
        UsageError: It is a bare network.
        StorageError: The store cannot take it; the version before is still current.
    """
    if proposal.bundle is None:
        raise UsageError(
            f"{proposal.name} is a bare network, no store takes it", "make a bundle of it first: policyloop import"
        )
    path = store.add(proposal.bundle)
    signatures = Path(proposal.source) / SIGNATURE_NAME
    if signatures.exists() and not (path / SIGNATURE_NAME).exists():
        data = read_file(signatures, MAX_SIGNATURE_BYTES)
        try:
            write_file(path / SIGNATURE_NAME, data)
        except OSError as error:
            raise StorageError.cannot_write(path, error) from error
    deliver(proposal.bundle, store, signer)
    return path
