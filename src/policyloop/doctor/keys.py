"""Who this machine is and whom it trusts: key files that only their owner may read."""

from __future__ import annotations

import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

from policyloop.bundle.signing import SIGNER_NAME, KeyRing, load_signer
from policyloop.core.keyfiles import KeyPair, NamedKeys
from policyloop.doctor.finding import Check, Finding
from policyloop.doctor.scope import Scope
from policyloop.errors import SafetyRefusal
from policyloop.link.keys import AllowList, default_directory, load_identity

__all__ = ["checks"]


def checks(scope: Scope) -> list[Check]:
    """Return the questions about the keys."""
    folder = scope.path("keys") or default_directory()
    return [
        Check("keys", partial(directory, folder)),
        Check("this machine's key", partial(secret, "this machine's key", folder / "identity.json", load_identity)),
        Check("signing key", partial(secret, "signing key", folder / SIGNER_NAME, load_signer)),
        Check(
            "robots that may connect", partial(names, "robots that may connect", folder / "allowed", AllowList(folder))
        ),
        Check(
            "whose bundles may drive", partial(names, "whose bundles may drive", folder / "trusted", KeyRing(folder))
        ),
    ]


def directory(folder: Path) -> Finding:
    """Tell whether others could put keys of their own here."""
    if not folder.is_dir():
        return Finding(what="keys", state="absent", found=f"no {folder}: this machine talks to itself only")
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        raise SafetyRefusal(f"others than its owner can write to {folder}", f"chmod 700 {folder}")
    return Finding(what="keys", state="fine", found=str(folder))


def secret(what: str, path: Path, load: Callable[[Path], KeyPair]) -> Finding:
    """Read a secret key, as the program that needs it does."""
    if not path.exists():
        return Finding(what=what, state="absent", found=f"no {path.name}")
    return Finding(what=what, state="fine", found=f"of '{load(path.parent).name}', readable by its owner only")


def names(what: str, folder: Path, listed: NamedKeys) -> Finding:
    """Tell who is on a list, and which of its files are no entries: those let nobody in, silently."""
    if not folder.is_dir():
        return Finding(what=what, state="absent", found="nobody")
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        raise SafetyRefusal(f"others than its owner can write to {folder}", f"chmod 700 {folder}")
    entries = listed.entries()
    idle = sorted({path.stem for path in folder.glob("*.json")} - set(entries))
    if idle:
        remedy = "allow them again: policyloop keys allow NAME PUBLIC_KEY"
        return Finding(what=what, state="wrong", found=f"no entries: {', '.join(idle)}", remedy=remedy, exit_code=3)
    return Finding(what=what, state="fine", found=", ".join(entries) or "nobody")
