"""What the doctor is to look at beside the machine itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["Scope"]


class Scope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the command line names; an empty string is not looked at.

    Attributes:
        profile: Name or path of the robot's profile.
        journal, store, spool: Directories.
        gateway: Address, such as `tcp://trainer:5555`.
        gateway_key: Public key of the gateway.
        keys: Directory of this machine's keys.
        ros: Look at the ROS graph too.
    """

    profile: str = "rover"
    journal: str = ""
    store: str = ""
    spool: str = ""
    gateway: str = ""
    gateway_key: str = ""
    keys: str = ""
    ros: bool = False

    def path(self, name: str) -> Path | None:
        """Return one of the directories; None if it was not named."""
        text = getattr(self, name)
        return Path(text) if text else None
