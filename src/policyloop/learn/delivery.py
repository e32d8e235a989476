"""How a policy that was learned reaches the store that robots follow."""

from __future__ import annotations

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import Signer, sign_bundle
from policyloop.bundle.store import Store

__all__ = ["deliver"]


def deliver(bundle: Bundle, store: Store, signer: Signer | None) -> None:
    """Add a bundle to a store, signed if there is a signer, and make it the current one; StorageError if it cannot."""
    path = store.add(bundle)
    if signer is not None:
        sign_bundle(path, bundle.manifest.encode(), signer)
    store.activate(path)
