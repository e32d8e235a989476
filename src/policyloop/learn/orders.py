"""What rank 0 tells the other ranks to do next; they do nothing of their own accord."""

from __future__ import annotations

import msgspec

from policyloop.learn.ranks import Ranks

__all__ = ["Begin", "Finish", "Learn", "Order", "Read", "Wait", "hear_order", "tell_order"]


class Wait(msgspec.Struct, tag=True, frozen=True):
    """Nothing yet; rank 0 is alive."""


class Begin(msgspec.Struct, tag=True, frozen=True):
    """Stand where this checkpoint does."""

    state: bytes
    tensors: bytes
    """See `encode_checkpoint`."""


class Read(msgspec.Struct, tag=True, frozen=True):
    """Read on in the journal."""

    version: int
    """Of the newest policy shipped; staleness counts against it."""
    wanted: int
    """Until so many steps of all ranks are ready ..."""
    stop: int
    """... or this position is reached."""


class Learn(msgspec.Struct, tag=True, frozen=True):
    """Make an update of what is ready."""

    update: int
    """So many lie behind."""
    done: float
    """Share of the planned training that lies behind."""


class Finish(msgspec.Struct, tag=True, frozen=True):
    """Training is over."""


Order = Wait | Begin | Read | Learn | Finish

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Order)


def tell_order(ranks: Ranks, order: Order) -> None:
    """Give an order to all other ranks; nothing happens if there are none."""
    ranks.tell(_encoder.encode(order))


def hear_order(ranks: Ranks) -> Order:
    """Wait for rank 0's next order; PolicyloopError if rank 0 is gone."""
    return _decoder.decode(ranks.hear())
