"""Depth comes back exactly, and nothing hostile costs more than a WireError."""

import struct
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from policyloop.errors import WireError
from policyloop.wire import depth as depth_module
from policyloop.wire.depth import pack_depth, unpack_depth

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
any_form = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
D435I = Path(__file__).resolve().parents[3] / "shared" / "data" / "d435i"


@pytest.fixture(params=["plain", "predicted"])
def form(request, monkeypatch):
    """Let even the smallest picture take this form."""
    monkeypatch.setattr(depth_module, "_PLAIN_BELOW_PIXELS", 0 if request.param == "predicted" else 1 << 30)
    return request.param


def zstd_of(planes: bytes, *, write_content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_content_size=write_content_size).compress(planes)


@any_form
@given(depth=arrays.arrays(np.uint16, sizes))
def test_depth_is_exact_for_every_image(form, depth):
    copy = unpack_depth(pack_depth(depth), depth.shape)
    assert copy.dtype == np.uint16
    np.testing.assert_array_equal(copy, depth)


@any_form
@given(depth=arrays.arrays(np.uint16, sizes, elements=st.sampled_from([0, 1, 32767, 32768, 65534, 65535])))
def test_depth_is_exact_where_differences_overflow(form, depth):
    np.testing.assert_array_equal(unpack_depth(pack_depth(depth), depth.shape), depth)


def test_every_difference_of_neighbours_survives(form):
    depth = np.stack([np.full(65536, 40_000), np.arange(65536)], axis=-1).astype(np.uint16)
    np.testing.assert_array_equal(unpack_depth(pack_depth(depth), depth.shape), depth)


def test_depth_need_not_be_contiguous(form):
    depth = np.arange(48, dtype=np.uint16).reshape(6, 8)
    for view in (depth.T, depth[::2, ::2], depth[:, ::-1]):
        np.testing.assert_array_equal(unpack_depth(pack_depth(view), view.shape), view)


def test_packing_leaves_the_image_alone(form):
    depth = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    before = depth.copy()
    pack_depth(depth)
    np.testing.assert_array_equal(depth, before)


def test_a_smooth_surface_packs_to_a_tenth(form):
    rows, columns = np.mgrid[0:240, 0:424]
    depth = (1500 + 2 * rows + columns).astype(np.uint16)
    assert len(pack_depth(depth)) < depth.nbytes / 10


@pytest.mark.parametrize("frame", [b"", b"\x00", b"\x02" + zstd_of(bytes(48))])
def test_an_unknown_depth_form_is_refused(frame):
    with pytest.raises(WireError, match="unknown depth form") as caught:
        unpack_depth(frame, (4, 6))
    assert caught.value.reason == "bad-depth"


@pytest.mark.parametrize("shape", [(4, 7), (3, 6), (6, 5), (1, 1)])
def test_depth_of_another_size_is_refused(form, shape):
    with pytest.raises(WireError, match="bad-depth"):
        unpack_depth(pack_depth(np.full((4, 6), 500, np.uint16)), shape)


def test_a_decompression_bomb_is_refused_by_what_it_claims():
    bomb = b"\x01" + zstd_of(bytes(200 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(WireError, match="bad-depth: planes unpack to 209715200 bytes"):
        unpack_depth(bomb, (4, 6))


def test_a_bomb_that_hides_its_size_is_refused():
    with pytest.raises(WireError, match="bad-depth"):
        unpack_depth(b"\x01" + zstd_of(bytes(20 << 20), write_content_size=False), (4, 6))


@pytest.mark.parametrize("real", [10, 47, 49, 5000])
def test_a_lying_content_size_is_refused(real):
    frame = bytearray(zstd_of(np.random.default_rng(0).bytes(real)))
    single_segment_small = frame[4] & 0b1110_0000 == 0b0010_0000
    if single_segment_small:
        frame[5] = 48
    else:  # two bytes, offset by 256: claim 48 in one byte instead
        frame[4] = frame[4] & 0b0011_1111 | 0b0010_0000
        frame[5:7] = bytes([48])
    assert zstandard.frame_content_size(bytes(frame)) == 48
    with pytest.raises(WireError, match="bad-depth"):
        unpack_depth(b"\x01" + bytes(frame), (4, 6))


@any_form
@given(cut=st.integers(1, 200), seed=st.integers(0, 99))
def test_a_truncated_depth_frame_is_refused(form, cut, seed):
    frame = pack_depth(np.random.default_rng(seed).integers(0, 65536, (8, 8), dtype=np.uint16))
    with pytest.raises(WireError, match="bad-depth"):
        unpack_depth(frame[: -min(cut, len(frame) - 1)], (8, 8))


def test_by_hand(monkeypatch):
    """Two rows of a 2x3 picture: what is written is what the documentation says."""
    monkeypatch.setattr(depth_module, "_PLAIN_BELOW_PIXELS", 0)
    picture = np.array([[500, 0, 700], [500, 600, 700]], np.uint16)
    packed = pack_depth(picture)
    form, *lengths = struct.unpack_from("<B4I", packed)
    assert form & 0xFC == 0x10
    assert 17 + sum(lengths) == len(packed)
    mask = zstandard.decompress(packed[17 : 17 + lengths[0]])
    assert mask == bytes([0b10111100])  # measured, hole, measured; all three measured; two bits of nothing


def test_a_picture_of_few_distinct_values_is_sent_as_ranks():
    rng = np.random.default_rng(0)
    values = np.sort(rng.choice(np.arange(1, 65536), 300, replace=False)).astype(np.uint16)
    place = np.clip(np.linspace(0, 299, 424) + rng.normal(0, 2, (240, 424)), 0, 299).astype(int)
    packed = pack_depth(values[place])
    assert packed[0] & 1
    np.testing.assert_array_equal(unpack_depth(packed, (240, 424)), values[place])
    assert len(packed) < 240 * 424  # less than a byte for a pixel whose neighbours differ by hundreds


def test_a_surface_without_steps_is_sent_as_millimetres():
    picture = np.random.default_rng(0).integers(1, 65536, (240, 424), dtype=np.uint16)
    packed = pack_depth(picture)
    assert not packed[0] & 1
    np.testing.assert_array_equal(unpack_depth(packed, (240, 424)), picture)
    assert len(packed) < 1.6 * picture.nbytes  # noise cannot be packed, and must not explode


def test_a_picture_of_holes_is_a_few_bytes():
    for shape in ((240, 424), (4, 6)):
        packed = pack_depth(np.zeros(shape, np.uint16))
        assert len(packed) < 60
        assert not unpack_depth(packed, shape).any()


@pytest.mark.skipif(not D435I.is_dir(), reason="the recorded camera frames are not here")
@pytest.mark.parametrize("name", ["aligned", "depth_only"])
def test_a_real_cameras_frames_are_exact_and_small(name):
    picture = np.load(D435I / f"{name}.npz")["depth_mm"][::3, ::3][:240, :424]
    packed = pack_depth(picture)
    np.testing.assert_array_equal(unpack_depth(packed, (240, 424)), picture)
    assert len(packed) < 46_000  # RVL: 56,499 and 65,697


def picture_of_surfaces(seed: int = 0):
    rng = np.random.default_rng(seed)
    place = (np.arange(48)[:, None] + rng.integers(0, 4, (48, 64))).astype(np.uint16)
    picture = 400 + 7 * place
    picture[rng.random((48, 64)) < 0.2] = 0
    picture[:8] = rng.integers(1, 65536, (8, 64))  # large residuals
    picture[5, 5] = 65535
    return picture.astype(np.uint16)


def refused(data: bytes) -> bool:
    """Unpack; False if it worked. Anything but WireError fails the test."""
    try:
        picture = unpack_depth(data, (48, 64))
    except WireError as error:
        assert error.reason == "bad-depth"
        return True
    assert picture.shape == (48, 64)
    assert picture.dtype == np.uint16
    return False


def test_every_length_of_the_head_is_checked(form):
    packed = bytearray(pack_depth(picture_of_surfaces()))
    if form == "plain":
        return
    for index in range(4):
        for change in (1, 200, 1 << 31):
            lied = bytearray(packed)
            (length,) = struct.unpack_from("<I", lied, 1 + 4 * index)
            struct.pack_into("<I", lied, 1 + 4 * index, (length + change) % (1 << 32))
            assert refused(bytes(lied))


def test_parts_that_do_not_belong_together_are_refused(monkeypatch):
    monkeypatch.setattr(depth_module, "_PLAIN_BELOW_PIXELS", 0)
    packed = pack_depth(picture_of_surfaces())
    form, *lengths = struct.unpack_from("<B4I", packed)
    ends = np.cumsum([17, *lengths])
    parts = [packed[start:stop] for start, stop in pairwise(ends)]

    def built(form=form, **changed):
        chosen = [
            changed.get(name, part) for name, part in zip(("mask", "table", "small", "large"), parts, strict=True)
        ]
        return struct.pack("<B4I", form, *map(len, chosen)) + b"".join(chosen)

    assert not refused(built())
    steps = np.frombuffer(zstandard.decompress(parts[1]), "<u2")
    deflated_bomb = depth_module._huffman(bytes(10 << 20))
    cases = {
        "form": built(form=0x14),
        "mask too short": built(mask=zstd_of(bytes(48 * 64 // 8 - 1))),
        "mask of another picture": built(mask=zstd_of(bytes(48 * 64 // 8))),
        "mask bomb": built(mask=zstd_of(bytes(100 << 20))),
        "no table": built(table=b""),
        "table cut": built(table=zstd_of(steps[:-1].tobytes())),
        "table odd": built(table=zstd_of(bytes([1, 0, 1]))),
        "table that does not ascend": built(table=zstd_of(bytes(2 * len(steps)))),
        "table beyond 65535": built(table=zstd_of(np.full(len(steps), 60_000, "<u2").tobytes())),
        "table bomb": built(table=zstd_of(bytes(100 << 20))),
        "table of garbage": built(table=b"garbage"),
        "small bomb": built(small=deflated_bomb),
        "small with a tail": built(small=parts[2] + b"more"),
        "small cut": built(small=parts[2][:-3]),
        "small of garbage": built(small=b"\xff" * 40),
        "large missing": built(large=b""),
        "large too long": built(large=zstd_of(bytes(64))),
    }
    assert [name for name, data in cases.items() if not refused(data)] == []


def test_hostile_bytes_cost_no_memory(form):
    packed = bytearray(pack_depth(picture_of_surfaces()))
    rng = np.random.default_rng(1)
    tracemalloc.start()
    for _ in range(3000):
        mutated = bytearray(packed)
        for _ in range(rng.integers(1, 4)):
            mutated[rng.integers(len(mutated))] = rng.integers(256)
        if rng.random() < 0.3:
            mutated = mutated[: rng.integers(len(mutated))]
        refused(bytes(mutated))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
