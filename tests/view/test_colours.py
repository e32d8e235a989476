from __future__ import annotations

import numpy as np

from policyloop.core.profile import Camera
from policyloop.view.colours import depth_colours

CAMERA = Camera(width=64, height=36, depth_near_m=0.25, depth_max_m=10.0)


def test_near_is_red_far_is_blue_and_unknown_is_grey() -> None:
    depth_mm = np.array([[250, 10_000, 65_535, 1, 0]], np.uint16)
    near, far, farther, nearer, unknown = depth_colours(depth_mm, CAMERA)[0].tolist()
    assert near == nearer == [122, 4, 3]
    assert far == farther == [48, 38, 120]
    assert max(unknown) - min(unknown) < 8


def test_the_middle_of_the_scale_is_the_geometric_mean() -> None:
    at_middle, above, below = depth_colours(np.array([[1581, 1700, 1500]], np.uint16), CAMERA)[0].astype(int)
    assert above[0] < at_middle[0] < below[0]  # red falls with distance
    assert at_middle[1] > 180  # green stands between red and blue
