from __future__ import annotations

import json
import struct
from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg

from policyloop.core.profile import RobotProfile
from policyloop.core.step import Step
from policyloop.dashboard.pictures import picture_message, render
from policyloop.errors import WireError
from policyloop.wire.codec import encode_step


def test_pictures_have_the_size_of_the_camera(mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    step = make_step(mini, 3)
    made = render(encode_step(step, mini)[1:], mini)
    assert list(made) == ["rgb", "depth"]
    for jpeg in made.values():
        assert simplejpeg.decode_jpeg(jpeg).shape == (36, 64, 3)
    colour = simplejpeg.decode_jpeg(made["rgb"]).astype(int)
    assert np.abs(colour - step.observation["rgb"]).mean() < 8


def test_a_robot_without_a_camera_has_none(walker: RobotProfile) -> None:
    assert render([b""], walker) == {}


def test_a_damaged_picture_is_an_error_of_the_wire(mini: RobotProfile, make_step: Callable[..., Step]) -> None:
    frames = encode_step(make_step(mini), mini)[1:]
    for broken in ([b"\xff\xd8 no jpeg", *frames[1:]], [frames[0], b"\x01", frames[2]]):
        with pytest.raises(WireError):
            render(broken, mini)


def test_a_message_says_what_it_is() -> None:
    message = picture_message('"</script>', "rgb", 7, b"JPEG")
    (length,) = struct.unpack_from("<I", message)
    assert json.loads(message[4 : 4 + length]) == {"robot": '"</script>', "picture": "rgb", "position": 7}
    assert message[4 + length :] == b"JPEG"
