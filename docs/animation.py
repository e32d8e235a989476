"""Draw the simulated rover before and after learning: two policies of one demo, in the same arena.

    python docs/animation.py demo docs/images/before-after.webp

`make animation` does it. Above, the way from above; below, what the camera saw. The gate only limits speeds, so that a
policy may hit something, as when the demo judges it.
"""

from __future__ import annotations

import argparse
import base64
import io
import math
from pathlib import Path

import msgspec
from PIL import Image, ImageDraw, ImageFont

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.demo.loop import DemoResult
from policyloop.demo.trail import Scene, Trail, record_trail, scene
from policyloop.evaluate import EVALUATION_ARENAS

SIDE_PX, CAMERA_PX, GAP_PX, HEAD_PX = 300, (300, 169), 12, 26
TICKS_PER_FRAME, FRAME_MS, LAST_FRAME_MS = 4, 80, 2500
"""Five times as fast as the robot: it drives ten ticks a second."""
PAPER, INK, SOLID, WAY, BODY, HIT = "#f6f7f4", "#22302b", "#8a968d", "#2f7d5d", "#d97706", "#c0392b"
QUALITY = 55


def main() -> None:
    """Write the animation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="Folder that `policyloop demo` wrote.")
    parser.add_argument("output", type=Path, help="The .webp file to write.")
    parser.add_argument("--arena", type=int, help="Seed; default: the first in which the policy before hits something.")
    arguments = parser.parse_args()
    result = msgspec.json.decode((arguments.demo / "report.json").read_bytes(), type=DemoResult)
    profile = load_profile("rover-mini")
    first = "clone" if "clone" in result.drivers else "untrained"
    arena = _telling_arena(profile, arguments.demo / result.clone) if arguments.arena is None else arguments.arena
    trails = [
        record_trail(profile, str(arguments.demo / path), label, arena, pictures=True, gate="limits")
        for label, path in ((first, result.clone), ("learned", result.best))
    ]
    frames = _frames(scene(profile, arena), trails)
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(
        arguments.output, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=QUALITY, method=6
    )


def _telling_arena(profile: RobotProfile, policy: Path) -> int:
    """Return the first arena of record in which a policy hits something; the very first if it never does."""
    arenas = range(EVALUATION_ARENAS, EVALUATION_ARENAS + 50)
    drives = ((seed, record_trail(profile, str(policy), "", seed, gate="limits")) for seed in arenas)
    return next((seed for seed, trail in drives if trail.collided), EVALUATION_ARENAS)


def _frames(place: Scene, trails: list[Trail]) -> list[Image.Image]:
    """Return the pictures of the animation; a drive that is over stands still."""
    last = max(len(trail.path) for trail in trails) - 1
    return [_frame(place, trails, tick) for tick in [*range(0, last, TICKS_PER_FRAME), last]]


def _frame(place: Scene, trails: list[Trail], tick: int) -> Image.Image:
    width = len(trails) * SIDE_PX + (len(trails) + 1) * GAP_PX
    frame = Image.new("RGB", (width, HEAD_PX + SIDE_PX + CAMERA_PX[1] + 2 * GAP_PX), PAPER)
    for index, trail in enumerate(trails):
        left = GAP_PX + index * (SIDE_PX + GAP_PX)
        now = min(tick, len(trail.path) - 1)
        over = tick >= len(trail.path) - 1
        title = f"{trail.driver}, {now / 10:.0f} s"
        title += f"   {'hit something: ' if trail.collided else ''}{trail.score:.0f} points" if over else ""
        pen = ImageDraw.Draw(frame)
        pen.text((left, 5), title, HIT if over and trail.collided else INK, font=ImageFont.load_default(14))
        frame.paste(_from_above(place, trail, now), (left, HEAD_PX))
        frame.paste(_camera(trail, now), (left, HEAD_PX + SIDE_PX + GAP_PX))
    return frame


def _from_above(place: Scene, trail: Trail, now: int) -> Image.Image:
    """Return the arena with the way up to now; the rover is an arrow."""
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    pen = ImageDraw.Draw(picture)
    scale = SIDE_PX / (2 * place.half_size_m)

    def at(x: float, y: float) -> tuple[float, float]:
        return SIDE_PX / 2 + x * scale, SIDE_PX / 2 - y * scale

    for kind, x, y, half_x, half_y, yaw in place.solids:
        if kind == "cylinder":
            pen.circle(at(x, y), half_x * scale, fill=SOLID)
        else:
            corners = [(half_x, half_y), (-half_x, half_y), (-half_x, -half_y), (half_x, -half_y)]
            pen.polygon([at(*_moved(x, y, yaw, *corner)) for corner in corners], fill=SOLID)
    points = [at(x, y) for x, y, _ in trail.path[: now + 1]]
    if len(points) > 1:
        pen.line(points, WAY, 3, joint="curve")
    arrow = [(0.26, 0.0), (-0.2, 0.18), (-0.12, 0.0), (-0.2, -0.18)]
    hit = trail.collided and now == len(trail.path) - 1
    x, y, yaw = trail.path[now]
    pen.polygon([at(*_moved(x, y, yaw, *corner)) for corner in arrow], fill=HIT if hit else BODY, outline=INK)
    pen.rectangle((0, 0, SIDE_PX - 1, SIDE_PX - 1), outline=INK)
    return picture


def _moved(x: float, y: float, yaw: float, ahead: float, left: float) -> tuple[float, float]:
    return x + ahead * math.cos(yaw) - left * math.sin(yaw), y + ahead * math.sin(yaw) + left * math.cos(yaw)


def _camera(trail: Trail, now: int) -> Image.Image:
    """Return what the camera saw; every second tick has a picture."""
    encoded = trail.rgb[min(now // 2, len(trail.rgb) - 1)]
    return Image.open(io.BytesIO(base64.b64decode(encoded))).resize(CAMERA_PX, Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
