import struct

import numpy as np
import pytest
import simplejpeg
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from policyloop.core.profile import Stream
from policyloop.errors import WireError
from policyloop.wire.images import pack_depth, pack_rgb, unpack_depth, unpack_rgb

SHAPE = (36, 64, 3)
JPEG, RAW = Stream(rgb_encoding="jpeg", jpeg_quality=90), Stream(rgb_encoding="raw")

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def gradient() -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:36, 0:64]
    return np.stack([rows * 5, columns * 3, rows + columns], axis=-1).astype(np.uint8)


def zstd_of(planes: bytes, *, write_content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_content_size=write_content_size).compress(planes)


# Depth


@given(depth=arrays.arrays(np.uint16, sizes))
def test_depth_is_exact_for_every_image(depth):
    copy = unpack_depth(pack_depth(depth), depth.shape)
    assert copy.dtype == np.uint16
    np.testing.assert_array_equal(copy, depth)


@given(depth=arrays.arrays(np.uint16, sizes, elements=st.sampled_from([0, 1, 32767, 32768, 65534, 65535])))
def test_depth_is_exact_where_differences_overflow(depth):
    np.testing.assert_array_equal(unpack_depth(pack_depth(depth), depth.shape), depth)


def test_every_difference_of_neighbours_survives():
    depth = np.stack([np.full(65536, 40_000), np.arange(65536)], axis=-1).astype(np.uint16)
    np.testing.assert_array_equal(unpack_depth(pack_depth(depth), depth.shape), depth)


def test_depth_need_not_be_contiguous():
    depth = np.arange(48, dtype=np.uint16).reshape(6, 8)
    for view in (depth.T, depth[::2, ::2], depth[:, ::-1]):
        np.testing.assert_array_equal(unpack_depth(pack_depth(view), view.shape), view)


def test_packing_leaves_the_image_alone():
    depth = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    before = depth.copy()
    pack_depth(depth)
    np.testing.assert_array_equal(depth, before)


def test_a_smooth_surface_packs_to_a_tenth():
    rows, columns = np.mgrid[0:240, 0:424]
    depth = (1500 + 2 * rows + columns).astype(np.uint16)
    assert len(pack_depth(depth)) < depth.nbytes / 10


@pytest.mark.parametrize("frame", [b"", b"\x00", b"\x02" + zstd_of(bytes(48))])
def test_an_unknown_depth_form_is_refused(frame):
    with pytest.raises(WireError, match="unknown depth form") as caught:
        unpack_depth(frame, (4, 6))
    assert caught.value.reason == "bad-depth"


@pytest.mark.parametrize("shape", [(4, 7), (3, 6), (6, 5), (1, 1)])
def test_depth_of_another_size_is_refused(shape):
    with pytest.raises(WireError, match="bad-depth"):
        unpack_depth(pack_depth(np.zeros((4, 6), np.uint16)), shape)


def test_a_decompression_bomb_is_refused_by_what_it_claims():
    bomb = b"\x01" + zstd_of(bytes(200 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(WireError, match="bad-depth: depth unpacks to 209715200 bytes"):
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


@given(cut=st.integers(1, 200), seed=st.integers(0, 99))
def test_a_truncated_depth_frame_is_refused(cut, seed):
    frame = pack_depth(np.random.default_rng(seed).integers(0, 65536, (8, 8), dtype=np.uint16))
    with pytest.raises(WireError, match="bad-depth"):
        unpack_depth(frame[: -min(cut, len(frame) - 1)], (8, 8))


# RGB


def test_raw_pictures_are_exact():
    rgb = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    rgb[0, 0] = 0
    frame = pack_rgb(rgb, RAW)
    assert len(frame) == rgb.nbytes
    np.testing.assert_array_equal(unpack_rgb(frame, SHAPE), rgb)


def test_a_raw_picture_may_begin_like_a_jpeg():
    rgb = gradient()
    rgb[0, 0] = [0xFF, 0xD8, 0xFF]
    np.testing.assert_array_equal(unpack_rgb(pack_rgb(rgb, RAW), SHAPE), rgb)


def test_jpeg_pictures_are_close():
    rgb = gradient()
    frame = pack_rgb(rgb, JPEG)
    picture = unpack_rgb(frame, SHAPE)
    assert len(frame) < rgb.nbytes / 2
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - rgb).mean() < 3


def test_jpeg_keeps_red_first():
    rgb = np.zeros(SHAPE, np.uint8)
    rgb[..., 0] = 200
    assert unpack_rgb(pack_rgb(rgb, JPEG), SHAPE).mean(axis=(0, 1)) == pytest.approx([200, 0, 0], abs=3)


def test_a_better_quality_is_larger():
    rgb = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    coarse, fine = (pack_rgb(rgb, Stream(jpeg_quality=quality)) for quality in (20, 95))
    assert len(coarse) < len(fine)


def test_a_strided_view_is_packed_as_it_looks():
    rgb = gradient()
    wide = np.repeat(rgb, 2, axis=1)
    for stream in (RAW, JPEG):
        assert pack_rgb(wide[:, ::2], stream) == pack_rgb(rgb, stream)


def test_memoryviews_are_taken():
    rgb, depth = gradient(), np.arange(24, dtype=np.uint16).reshape(4, 6)
    np.testing.assert_array_equal(unpack_rgb(memoryview(pack_rgb(rgb, RAW)), SHAPE), rgb)
    np.testing.assert_array_equal(unpack_depth(memoryview(pack_depth(depth)), (4, 6)), depth)


@pytest.mark.parametrize(
    "frame", [b"", b"\xff", bytes(36 * 64 * 3 - 1), bytes(36 * 64 * 3 + 1), b"\x89PNG" + bytes(90)]
)
def test_bytes_that_are_no_picture_are_refused(frame):
    with pytest.raises(WireError, match="neither a JPEG nor a raw picture") as caught:
        unpack_rgb(frame, SHAPE)
    assert caught.value.reason == "bad-rgb"


def test_a_broken_jpeg_is_refused():
    frame = pack_rgb(gradient(), JPEG)
    for length in (2, 3, 20, len(frame) // 2, len(frame) - 2):
        with pytest.raises(WireError, match="bad-rgb: broken JPEG"):
            unpack_rgb(frame[:length], SHAPE)


@pytest.mark.parametrize("size", [(36, 65), (35, 64), (64, 36), (1, 1)])
def test_a_jpeg_of_another_size_is_refused(size):
    frame = pack_rgb(np.zeros((*size, 3), np.uint8), JPEG)
    with pytest.raises(WireError, match=f"bad-rgb: JPEG of {size[1]}x{size[0]}, expected 64x36"):
        unpack_rgb(frame, SHAPE)


def test_a_jpeg_that_claims_to_be_huge_is_refused_by_its_header():
    frame = bytearray(pack_rgb(gradient(), JPEG))
    start = frame.index(b"\xff\xc0") + 5  # start of frame: marker, length, precision, then height and width
    assert struct.unpack_from(">HH", frame, start) == (36, 64)
    for side, message in ((65_500, "JPEG of 65500x65500"), (65_535, "broken JPEG header"), (0, "broken JPEG header")):
        struct.pack_into(">HH", frame, start, side, side)
        with pytest.raises(WireError, match=f"bad-rgb: {message}"):
            unpack_rgb(bytes(frame), SHAPE)


def test_a_grey_jpeg_becomes_rgb():
    frame = simplejpeg.encode_jpeg(np.full((36, 64, 1), 77, np.uint8), colorspace="GRAY")
    assert unpack_rgb(frame, SHAPE).shape == SHAPE
