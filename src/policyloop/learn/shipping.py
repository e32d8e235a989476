"""How a policy that was learned reaches the store that robots follow."""

from __future__ import annotations

import logging
from collections.abc import Callable

from policyloop.bundle.build import Bundle
from policyloop.bundle.manifest import NETWORK_NAME
from policyloop.bundle.signing import Signer, sign_bundle
from policyloop.bundle.store import Store
from policyloop.bundle.verify import read_manifest
from policyloop.errors import PolicyloopError, StorageError
from policyloop.link.gateway import Gateway

__all__ = ["Shipping", "deliver"]

log = logging.getLogger(__name__)


class Shipping:
    """Ships every policy of one training, under numbers that count up.

    Args:
        store: Robots follow its current policy.
        version: Of the newest policy that this training has shipped; 0 = none yet.
        signer: Signs every policy; None = they carry no signature.
        gateway: Tells robots; None = nobody listens.

    Attributes:
        version: See above.
        bundle: The newest policy, shipped or not; None = none was exported yet.
    """

    def __init__(
        self, store: Store, version: int, signer: Signer | None = None, gateway: Gateway | None = None
    ) -> None:
        self._store, self._signer, self._gateway = store, signer, gateway
        self._refused: Bundle | None = None
        self.version = version
        self.bundle: Bundle | None = None

    def ship(self, export: Callable[[int], Bundle]) -> None:
        """Export the policy as it is now, and deliver it; if the disk refuses, robots keep what they have.

        Args:
            export: Returns the policy under a number, checked against torch.

        Raises:
            StorageError: Robots have none.
        """
        self._refused, self.bundle = None, export(self.version + 1)
        if self._was_shipped(self.bundle):
            self.version = self.bundle.manifest.version
            return
        if self._store.newest_version > self.version:  # of updates that went another way
            self.bundle = export(self._store.newest_version + 1)
        try:
            self._deliver(self.bundle)
        except StorageError as error:
            if self.version == 0:
                raise
            self._refused = self.bundle
            log.error("robots keep policy %d, the next update ships again: %s", self.version, error)

    def finish(self) -> None:
        """Deliver the last policy if the disk refused it; StorageError if it still does."""
        if self._refused is not None:
            self._deliver(self._refused)

    def _was_shipped(self, bundle: Bundle) -> bool:
        """Tell whether robots got this very policy under this number before the learner was killed.

        They have it, or one that was made from it; and steps that it drove are as fresh as they were.
        """
        manifest = bundle.manifest
        if manifest.version > self._store.newest_version:
            return False
        try:
            shipped = read_manifest(self._store.find(manifest.version))[1]
        except PolicyloopError:
            return False
        return shipped.files[NETWORK_NAME] == manifest.files[NETWORK_NAME]

    def _deliver(self, bundle: Bundle) -> None:
        deliver(bundle, self._store, self._signer)
        self._refused, self.version = None, bundle.manifest.version
        if self._gateway is not None:
            self._gateway.announce(policy_version=self.version)


def deliver(bundle: Bundle, store: Store, signer: Signer | None) -> None:
    """Add a bundle to a store, signed if there is a signer, and make it the current one; StorageError if it cannot."""
    path = store.add(bundle)
    if signer is not None:
        sign_bundle(path, bundle.manifest.encode(), signer)
    store.activate(path)
