"""A differential-drive rover in an arena: MuJoCo physics, RGB-D camera, IMU, odometry."""

from __future__ import annotations

import math
from functools import lru_cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import column_distances, free_distance
from policyloop.core.profile import RobotProfile, Simulation
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError
from policyloop.sim.arena import Arena
from policyloop.sim.camera import ROVER_GROUP, CasterName, RgbdCamera, make_caster

__all__ = ["Rover", "arena"]

_WHEEL_RADIUS_M = 0.06
_WHEEL_HALF_WIDTH_M = 0.025
_PHYSICS_STEP_S = 0.01


@lru_cache(maxsize=256)
def arena(seed: int, settings: Simulation) -> Arena:
    """Return the arena of a seed; built once per process."""
    return Arena(seed, settings)


def _mjcf(place: Arena, profile: RobotProfile, timestep_s: float) -> str:
    """Return the MuJoCo model of the arena with the rover in it."""
    assert profile.camera is not None
    solids = []
    for index, solid in enumerate(place.solids):
        sizes = solid.half_size_m if solid.kind == "box" else (solid.half_size_m[0], solid.half_size_m[2])
        solids.append(
            f'<geom name="solid{index}" type="{solid.kind}" pos="{_numbers(solid.position_m)}" '
            f'size="{_numbers(sizes)}" euler="0 0 {solid.yaw_rad:.6f}"/>'
        )
    length, width = profile.body.length_m, profile.body.width_m
    half_track = width / 2 - 0.03
    # MuJoCo takes the larger friction of two geoms unless one has priority: without it casters drag.
    caster = 'type="sphere" size="0.05" mass="0.1" friction="0 0 0" condim="1" priority="1"'
    floor = place.half_size_m + 5
    wheel = f'type="cylinder" size="{_WHEEL_RADIUS_M} {_WHEEL_HALF_WIDTH_M}" zaxis="0 1 0" mass="0.4"'
    return f"""<mujoco><compiler angle="radian"/><option timestep="{timestep_s:.9f}" integrator="implicitfast"/>
<default><default class="rover"><geom group="{ROVER_GROUP}"/></default></default>
<worldbody><geom name="floor" type="plane" size="{floor} {floor} .1"/>{"".join(solids)}
<body name="rover" pos="0 0 {_WHEEL_RADIUS_M}" childclass="rover"><freejoint/>
 <geom type="box" size="{length / 2} {half_track - 0.03} .04" pos="0 0 .05" mass="4"/>
 <geom pos="{length / 2 - 0.04} 0 -.009" {caster}/><geom pos="{-length / 2 + 0.04} 0 -.009" {caster}/>
 <camera name="camera" pos="{profile.camera.mount_forward_m} 0 {profile.camera.mount_height_m - _WHEEL_RADIUS_M}"
  xyaxes="0 -1 0 0 0 1"/><site name="imu"/>
 <body pos="0 {half_track} 0"><joint name="left" axis="0 1 0" damping=".02" armature=".005"/>
  <geom {wheel} friction="1.2 .01 .001" condim="4"/></body>
 <body pos="0 {-half_track} 0"><joint name="right" axis="0 1 0" damping=".02" armature=".005"/>
  <geom {wheel} friction="1.2 .01 .001" condim="4"/></body>
</body></worldbody>
<actuator><velocity joint="left" kv="2" forcerange="-4 4"/><velocity joint="right" kv="2" forcerange="-4 4"/></actuator>
<sensor><accelerometer site="imu"/><velocimeter site="imu"/><gyro site="imu"/></sensor></mujoco>"""


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


class Rover:
    """The simulated machine. One call of `drive` is one tick of the profile's control rate.

    Args:
        profile: Needs a camera and the actions `linear` and `angular`.
        caster: Which ray caster draws the pictures.
    """

    def __init__(self, profile: RobotProfile, *, caster: CasterName = "auto") -> None:
        if profile.camera is None or [q.name for q in profile.action] != ["linear", "angular"]:
            raise ConfigError(
                f"profile '{profile.name}' does not describe a rover",
                "the simulated rover needs a [camera] and the actions linear and angular",
            )
        self.profile = profile
        self._camera = profile.camera
        self._caster_name: CasterName = caster
        self._rgbd = RgbdCamera(self._camera, noise=profile.simulation.sensor_noise)
        self._period_s = 1 / profile.rates.control_hz
        self._substeps = max(1, round(self._period_s / _PHYSICS_STEP_S))
        self._half_track = profile.body.width_m / 2 - 0.03
        self.arena: Arena | None = None

    def reset(self, place: Arena, rng: np.random.Generator) -> None:
        """Put the rover at a random free pose of `place`; `rng` also drives the sensor noise."""
        if self.arena is not place:
            self.arena = place
            timestep_s = self._period_s / self._substeps
            self._model = mujoco.MjModel.from_xml_string(_mjcf(place, self.profile, timestep_s))
            self._data = mujoco.MjData(self._model)
            self._caster = make_caster(self._caster_name, place, self._camera, self._model, self._data)
            self._palette = self._rgbd.palette(place)
            self._is_rover = self._model.geom_group == ROVER_GROUP
            self._floor = self._model.geom("floor").id
        mujoco.mj_resetData(self._model, self._data)
        self._rng = rng
        x, y, yaw = place.spawn(rng)
        self._data.qpos[:3] = x, y, _WHEEL_RADIUS_M
        self._data.qpos[3:7] = math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)
        self._linear_mps = self._angular_radps = 0.0
        self.contact = False
        mujoco.mj_step(self._model, self._data, 10)

    def drive(self, linear_mps: float, angular_radps: float) -> None:
        """Follow a velocity command for one tick, as fast as the motors' accelerations allow."""
        limits, dt = self.profile.limits, self._period_s
        slower, faster = -limits.max_deceleration_mps2 * dt, limits.max_acceleration_mps2 * dt
        turn = limits.max_angular_acceleration_radps2 * dt
        self._linear_mps += min(max(linear_mps - self._linear_mps, slower), faster)
        self._angular_radps += min(max(angular_radps - self._angular_radps, -turn), turn)
        side_mps = self._angular_radps * self._half_track
        self._data.ctrl[:] = (
            (self._linear_mps - side_mps) / _WHEEL_RADIUS_M,
            (self._linear_mps + side_mps) / _WHEEL_RADIUS_M,
        )
        mujoco.mj_step(self._model, self._data, self._substeps)
        self.contact = self._touches()

    def _touches(self) -> bool:
        count = self._data.ncon
        if count == 0:
            return False
        geoms = self._data.contact.geom[:count]
        ours = self._is_rover[geoms]
        return bool(((ours[:, 0] != ours[:, 1]) & (geoms != self._floor).all(axis=1)).any())

    @property
    def pose(self) -> tuple[float, float, float]:
        """True pose: x m, y m, yaw rad. For reports; drivers see only observations."""
        w, x, y, z = self._data.qpos[3:7]
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return float(self._data.qpos[0]), float(self._data.qpos[1]), yaw

    def observe(self) -> Arrays:
        """Return one observation: `rgb`, `depth`, `proprio` by the profile's specs."""
        data = self._data
        rgb, depth = self._rgbd.picture(
            self._caster, self._palette, data.cam_xpos[0], data.cam_xmat[0].reshape(3, 3), self._rng
        )
        columns = column_distances(depth, self._camera)
        ahead = free_distance(columns, self._camera, self.profile.body.corridor_half_width_m)
        return {"rgb": rgb, "depth": depth, "proprio": self._proprio(ahead)}

    def _proprio(self, free_distance_m: float) -> NDArray[np.float32]:
        data = self._data
        w, x, y, z = data.qpos[3:7]
        acceleration, velocity, rate = data.sensordata[:3], data.sensordata[3:6], data.sensordata[6:9]
        readings = {
            "linear_vel": velocity[0],
            "angular_vel": rate[2],
            "roll": math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            "pitch": math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x)))),
            "accel_mag": math.sqrt(float(acceleration @ acceleration)),
            "min_forward_dist": free_distance_m,
        }
        return np.array([readings[quantity.name] for quantity in self.profile.proprio], np.float32)
