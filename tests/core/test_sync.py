"""Readings of two sensors become pairs: each used once, in order, none too far apart."""

from __future__ import annotations

from policyloop.core.sync import Synchronizer

MS = 1_000_000


def pairs(readings: list[tuple[str, int]], tolerance_ms: int = 15) -> list[tuple[int, int, int]]:
    """Feed (sensor, ms) in this order; returns (stamp, rgb's ms, depth's ms) of every pair."""
    sync = Synchronizer(("rgb", "depth"), tolerance_ms * MS)
    found = []
    for name, ms in readings:
        pair = sync.add(name, ms * MS, ms)
        if pair is not None:
            found.append((pair[0] // MS, pair[1]["rgb"], pair[1]["depth"]))
    return found


def test_equal_stamps_are_pairs() -> None:
    assert pairs([("rgb", 0), ("depth", 0), ("depth", 33), ("rgb", 33)]) == [(0, 0, 0), (33, 33, 33)]


def test_the_pairs_stamp_is_the_older_one() -> None:
    assert pairs([("rgb", 5), ("depth", 0), ("depth", 33), ("rgb", 38)]) == [(0, 5, 0), (33, 38, 33)]


def test_readings_too_far_apart_are_no_pair() -> None:
    assert pairs([("rgb", 0), ("depth", 16), ("rgb", 33), ("depth", 49)]) == []
    assert pairs([("rgb", 0), ("depth", 15)]) == [(0, 0, 15)]


def test_a_lost_picture_costs_its_partner_only() -> None:
    readings = [("rgb", 0), ("depth", 0), ("rgb", 33), ("rgb", 66), ("depth", 66), ("rgb", 100), ("depth", 100)]
    assert pairs(readings) == [(0, 0, 0), (66, 66, 66), (100, 100, 100)]


def test_a_late_sensor_finds_its_old_partner() -> None:
    readings = [("rgb", 0), ("rgb", 33), ("rgb", 66), ("depth", 0), ("depth", 33), ("depth", 66)]
    assert pairs(readings) == [(0, 0, 0), (33, 33, 33), (66, 66, 66)]


def test_what_waits_is_bounded_and_counted() -> None:
    sync = Synchronizer(("rgb", "depth"), MS)
    for i in range(1000):
        sync.add("rgb", i * 33 * MS, i)
    assert sync.unmatched == 1000 - 16
    assert sync.add("depth", 999 * 33 * MS, "d") == (999 * 33 * MS, {"rgb": 999, "depth": "d"})
    assert sync.unmatched == 999
