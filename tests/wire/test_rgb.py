import struct

import numpy as np
import pytest
import simplejpeg
from hypothesis import strategies as st
from numpy.typing import NDArray

from policyloop.core.profile import Stream
from policyloop.errors import WireError
from policyloop.wire.rgb import pack_rgb, unpack_rgb

SHAPE = (36, 64, 3)
JPEG, RAW = Stream(rgb_encoding="jpeg", jpeg_quality=90), Stream(rgb_encoding="raw")

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def gradient() -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:36, 0:64]
    return np.stack([rows * 5, columns * 3, rows + columns], axis=-1).astype(np.uint8)


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
    rgb = gradient()
    np.testing.assert_array_equal(unpack_rgb(memoryview(pack_rgb(rgb, RAW)), SHAPE), rgb)


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
