"""A robot that takes policies from its trainer over the link: what is signed, fits and is newer goes into its store."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from policyloop.bundle.receive import Recipient, receive_bundle
from policyloop.bundle.signing import KeyRing
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.errors import UsageError
from policyloop.link.download import Download
from policyloop.runtime.rknn_backend import board_npu

__all__ = ["open_download"]

_KEEP = 5


def open_download(
    pull: str, source: Path, profile: RobotProfile, ring: KeyRing | None, gateway: str
) -> Download | None:
    """Return what pulls into the store at `source`; None if `pull` is off.

    Args:
        pull: `off`; `stage`: take versions in; `activate`: make them current too, so that they are tried.
        source: What the robot drives with.
        profile: The robot's.
        ring: Whose signatures count.
        gateway: Where it is connected to.

    Raises:
        UsageError: There is nobody to pull from, no store to pull into, or nobody who is trusted.
    """
    if pull == "off":
        return None
    if pull not in ("stage", "activate"):
        raise UsageError(f"--pull {pull}", "use off, stage or activate")
    if not gateway or ring is None or not (source / "versions").is_dir():
        raise UsageError(
            f"--pull {pull} needs a store to pull into, a gateway, and somebody who is trusted",
            "give --policy STORE, --connect ADDRESS and --trusted DIRECTORY",
        )
    store = Store(source)
    recipient = Recipient(store, profile, ring, board_npu())

    def take_in(archive: BinaryIO) -> None:
        path = receive_bundle(archive, recipient)
        if pull == "activate":
            store.activate(path)
        store.prune(_KEEP)

    def wanted(name: str) -> bool:
        return not any(path.name == name for path in store.versions())

    return Download(wanted, take_in)
