"""Policies over the link: offered when signed, pulled piece by piece, refused like any other archive."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import KeyRing, Signer, create_signer, sign_bundle
from policyloop.bundle.store import Store
from policyloop.bundle.verify import open_bundle
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.errors import UsageError, VerificationError
from policyloop.link.download import Download, DownloadSettings
from policyloop.link.gateway import Gateway
from policyloop.link.offer import Offer
from policyloop.link.uplink import Uplink, UplinkSettings
from policyloop.robot.pull import open_download
from policyloop.wire.messages import CHUNK_BYTES, Chunk, Fetch

QUICK = UplinkSettings(resend_after_s=0.1, heartbeat_s=0.1, sync_every_s=0.1)
IMPATIENT = DownloadSettings(ask_every_s=0.02, retry_after_s=0.2)


class Trainer:
    """A store whose current bundle is offered, and who signs."""

    def __init__(self, root: Path, exported: Bundle) -> None:
        self.store, self.exported = Store(root / "shipped"), exported
        self.signer: Signer = create_signer(root / "operator", "operator")

    def ship(self, version: int, *, signed: bool = True, **changes: Any) -> Path:
        bundle = self.exported.revised(version=version, **changes)
        path = self.store.add(bundle)
        if signed:
            sign_bundle(path, bundle.manifest.encode(), self.signer)
        self.store.activate(path)
        return path


@pytest.fixture
def trainer(tmp_path: Path, exported: Bundle) -> Trainer:
    return Trainer(tmp_path, exported)


# -- the offer --------------------------------------------------------------------------------


def pieces(offer: Offer) -> Iterator[bytes]:
    offered, nothing = offer.answer(Fetch(digest="", offset=0))
    assert nothing == b""
    for offset in range(0, offered.size, CHUNK_BYTES):
        chunk, piece = offer.answer(Fetch(digest=offered.digest, offset=offset))
        assert chunk.offset == offset
        yield piece


def test_nothing_is_offered_before_somebody_has_signed_it(trainer: Trainer) -> None:
    offer = Offer(trainer.store)
    assert offer.answer(Fetch(digest="", offset=0))[0].size == 0
    path = trainer.ship(1, signed=False)
    assert offer.answer(Fetch(digest="", offset=0))[0].size == 0
    sign_bundle(path, (path / "manifest.json").read_bytes(), trainer.signer)
    assert offer.answer(Fetch(digest="", offset=0))[0].name == path.name


def test_the_pieces_are_the_archive_of_the_current_bundle(trainer: Trainer) -> None:
    offer = Offer(trainer.store)
    trainer.ship(1)
    path = trainer.ship(2)
    archive = b"".join(pieces(offer))
    assert archive.startswith(b"manifest.json")
    assert (path / "policy.onnx").read_bytes() in archive
    assert len(archive) > 2 * CHUNK_BYTES


@pytest.mark.parametrize("offset", [-1, 1 << 40, 1 << 62])
def test_a_place_outside_of_the_archive_gives_nothing(trainer: Trainer, offset: int) -> None:
    trainer.ship(1)
    offer = Offer(trainer.store)
    digest = offer.answer(Fetch(digest="", offset=0))[0].digest
    assert offer.answer(Fetch(digest=digest, offset=offset))[1] == b""
    assert offer.answer(Fetch(digest="0" * 64, offset=0))[1] == b""


def test_a_damaged_bundle_is_not_offered_and_said_once(trainer: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    (trainer.ship(1) / "policy.onnx").unlink()
    offer = Offer(trainer.store)
    for _ in range(3):
        assert offer.answer(Fetch(digest="", offset=0))[0].size == 0
    assert sum("cannot be offered" in record.message for record in caplog.records) == 1


# -- the download -----------------------------------------------------------------------------


class Taken:
    """What a download delivered."""

    def __init__(self, refuse: bool = False) -> None:
        self.archives: list[bytes] = []
        self._refuse = refuse

    def __call__(self, archive: io.BytesIO) -> None:
        self.archives.append(archive.read())
        if self._refuse:
            raise VerificationError("no")


def chunk(size: int, offset: int = 0, digest: str = "d", name: str = "000001-x") -> Chunk:
    return Chunk(name=name, digest=digest, size=size, offset=offset)


def test_pieces_out_of_order_doubled_empty_or_too_long_are_not_taken() -> None:
    taken = Taken()
    download = Download(lambda name: True, taken, IMPATIENT)
    download.take(chunk(10), b"")
    for offset, piece in ((3, b"abc"), (0, b""), (0, b"x" * 11), (0, b"abc"), (0, b"abc"), (3, b"defghijk")):
        download.take(chunk(10, offset), piece)
    assert taken.archives == []
    assert download.request(1e9) == Fetch(digest="d", offset=3)
    download.take(chunk(10, 3), b"defghij")
    assert taken.archives == [b"abcdefghij"]
    assert download.request(2e9) == Fetch(digest="", offset=0)


def test_what_was_delivered_or_refused_is_not_fetched_again() -> None:
    for refuse in (False, True):
        taken = Taken(refuse)
        download = Download(lambda name: True, taken, IMPATIENT)
        for _ in range(3):
            download.take(chunk(3), b"")
            download.take(chunk(3), b"abc")
        assert taken.archives == [b"abc"]


def test_another_offer_in_the_middle_begins_anew() -> None:
    taken = Taken()
    download = Download(lambda name: True, taken, IMPATIENT)
    download.take(chunk(6), b"")
    download.take(chunk(6), b"abc")
    download.take(chunk(4, digest="e"), b"")
    assert download.request(1e9) == Fetch(digest="e", offset=0)
    download.take(chunk(4, digest="e"), b"efgh")
    assert taken.archives == [b"efgh"]


def test_what_is_too_large_or_of_no_interest_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    taken = Taken()
    download = Download(lambda name: name != "000001-x", taken, IMPATIENT)
    download.take(chunk(3), b"")
    for _ in range(3):
        download.take(chunk(1 << 40, digest="e", name="000002-y"), b"")
    download.take(chunk(0, digest="", name=""), b"")
    assert download.request(1e9) == Fetch(digest="", offset=0)
    assert sum("at most" in record.message for record in caplog.records) == 1


# -- over real sockets ------------------------------------------------------------------------


@pytest.fixture
def robot_store(tmp_path: Path, trainer: Trainer, exported: Bundle, mini: RobotProfile) -> Store:
    """A robot's store; version 1 drives. The robot trusts the operator."""
    KeyRing(tmp_path / "robot").allow("operator", trainer.signer.public)
    store = Store(tmp_path / "models")
    store.activate(store.add(exported.revised(version=1)))
    return store


@pytest.fixture
def link(house: Any, trainer: Trainer, robot_store: Store, mini: RobotProfile, tmp_path: Path) -> Callable[..., Uplink]:
    """Return `link(pull)`: a robot's uplink to a gateway that offers the trainer's store."""
    journal = house.journal()
    gateway = Gateway(journal, mini, "tcp://127.0.0.1:*", offer=Offer(trainer.store))
    house._closers.append(gateway.close)
    gateway.start()

    def connect(pull: str) -> Uplink:
        download = open_download(pull, robot_store.directory, mini, KeyRing(tmp_path / "robot"), gateway.address)
        if download is not None:
            download._settings = IMPATIENT
        uplink = Uplink(
            gateway.address, mini, "r0", tmp_path / "spool", QUICK, context=house._context, download=download
        )
        house._closers.append(uplink.close)
        return uplink

    return connect


def test_a_robot_that_pulls_gets_every_new_version_and_goes_on_streaming(
    house: Any,
    link: Callable[..., Uplink],
    trainer: Trainer,
    robot_store: Store,
    mini: RobotProfile,
    make_step: Callable[..., Step],
    tmp_path: Path,
) -> None:
    uplink = link("activate")
    for version in (2, 3):
        path = trainer.ship(version)
        for sequence in range(5 * version, 5 * version + 5):
            uplink.append(make_step(mini, sequence, boot=uplink.boot, gap=True))
        house.until(lambda name=path.name: robot_store.current.name == name, uplink)
        opened = open_bundle(robot_store.find(version), mini, KeyRing(tmp_path / "robot"))
        assert opened.signer == "operator"
    house.until(lambda: not uplink.pending, uplink)
    assert robot_store.state_of(robot_store.find(3)) == "active"


def test_a_robot_that_only_stages_keeps_driving_what_it_drives(
    house: Any, link: Callable[..., Uplink], trainer: Trainer, robot_store: Store
) -> None:
    before, path = robot_store.current, trainer.ship(2)
    uplink = link("stage")
    house.until(lambda: path.name in [entry.name for entry in robot_store.versions()], uplink)
    assert (robot_store.current, robot_store.state_of(robot_store.find(2))) == (before, "candidate")


def test_nothing_is_pulled_unless_a_person_says_so(
    house: Any, link: Callable[..., Uplink], trainer: Trainer, robot_store: Store
) -> None:
    trainer.ship(2)
    uplink = link("off")
    house.until(lambda: uplink.connected, uplink)
    for _ in range(100):
        uplink.pump(0.002)
    assert [path.name[:6] for path in robot_store.versions()] == ["000001"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile_digest": "0" * 64}, "is for profile"),
        ({"minimum_runtime": "9.0.0"}, "needs policyloop"),
        ({"created": "2020-01-01T00:00:00Z", "expires": "2020-01-02T00:00:00Z"}, "expired"),
    ],
)
def test_what_does_not_fit_is_refused_once_and_the_next_version_is_taken(
    house: Any,
    link: Callable[..., Uplink],
    trainer: Trainer,
    robot_store: Store,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    words: str,
) -> None:
    caplog.set_level(logging.ERROR)
    trainer.ship(2, **changes)
    uplink = link("activate")
    house.until(lambda: any(words in record.message for record in caplog.records), uplink)
    for _ in range(60):
        uplink.pump(0.002)
    assert sum("is refused" in record.message for record in caplog.records) == 1
    trainer.ship(3)
    house.until(lambda: robot_store.newest_version == 3, uplink)
    assert [path.name[:6] for path in robot_store.versions()] == ["000001", "000003"]


def test_what_a_stranger_signed_is_refused(
    house: Any,
    link: Callable[..., Uplink],
    trainer: Trainer,
    robot_store: Store,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    trainer.signer = create_signer(tmp_path / "stranger", "stranger")
    trainer.ship(2)
    uplink = link("activate")
    house.until(lambda: any("nobody who is trusted" in record.message for record in caplog.records), uplink)
    assert [path.name[:6] for path in robot_store.versions()] == ["000001"]


@pytest.mark.parametrize("pull", ["stage", "activate", "sometimes"])
def test_pulling_needs_a_store_a_gateway_and_somebody_who_is_trusted(
    pull: str, robot_store: Store, mini: RobotProfile, tmp_path: Path
) -> None:
    ring = KeyRing(tmp_path / "robot")
    for source, trusted, address in (
        (tmp_path, ring, "tcp://x:1"),
        (robot_store.directory, None, "tcp://x:1"),
        (robot_store.directory, ring, ""),
    ):
        with pytest.raises(UsageError, match="--pull"):
            open_download(pull, source, mini, trusted, address)
