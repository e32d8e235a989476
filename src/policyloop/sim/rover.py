"""A differential-drive rover in an arena: MuJoCo physics, RGB-D camera, IMU, odometry."""

from __future__ import annotations

import math
from functools import lru_cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from policyloop.core.corridor import column_distances, free_distance
from policyloop.core.profile import TOLD_QUANTITIES, RobotProfile, Simulation
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError
from policyloop.sim.arena import Arena
from policyloop.sim.camera import ROVER_GROUP, CasterName, RgbdCamera, make_caster
from policyloop.sim.randomization import NOMINAL, Conditions

__all__ = ["Rover", "arena"]

_WHEEL_RADIUS_M = 0.06
_WHEEL_HALF_WIDTH_M = 0.025
_PHYSICS_STEP_S = 0.01
_SENSED = frozenset({"linear_vel", "angular_vel", "roll", "pitch", "accel_mag", "min_forward_dist"})


@lru_cache(maxsize=256)
def arena(seed: int, settings: Simulation) -> Arena:
    """Return the arena of a seed; built once per process."""
    return Arena(seed, settings)


def _mjcf(place: Arena, profile: RobotProfile, timestep_s: float, conditions: Conditions) -> str:
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
    # MuJoCo takes the larger friction of two geoms unless one has priority: without it casters drag, and no tyre slips.
    caster = 'type="sphere" size="0.05" mass="0.1" friction="0 0 0" condim="1" priority="1"'
    tyre = f'friction="{conditions.friction} .01 .001" condim="4" priority="1"'
    wheel = f'type="cylinder" size="{_WHEEL_RADIUS_M} {_WHEEL_HALF_WIDTH_M}" zaxis="0 1 0" mass="0.4" {tyre}'
    floor = place.half_size_m + 5
    forward_m = profile.camera.mount_forward_m + conditions.camera_forward_m
    height_m = profile.camera.mount_height_m + conditions.camera_raised_m - _WHEEL_RADIUS_M
    pitch_rad = math.radians(conditions.camera_pitch_deg)
    return f"""<mujoco><compiler angle="radian"/><option timestep="{timestep_s:.9f}" integrator="implicitfast"/>
<default><default class="rover"><geom group="{ROVER_GROUP}"/></default></default>
<worldbody><geom name="floor" type="plane" size="{floor} {floor} .1"/>{"".join(solids)}
<body name="rover" pos="0 0 {_WHEEL_RADIUS_M}" childclass="rover"><freejoint/>
 <geom type="box" size="{length / 2} {half_track - 0.03} .04" pos="0 0 .05"
  mass="{conditions.body_mass_kg}"/>
 <geom pos="{length / 2 - 0.04} 0 -.009" {caster}/><geom pos="{-length / 2 + 0.04} 0 -.009" {caster}/>
 <camera name="camera" pos="{forward_m} 0 {height_m}"
  xyaxes="0 -1 0 {math.sin(pitch_rad)} 0 {math.cos(pitch_rad)}"/><site name="imu"/>
 <body pos="0 {half_track} 0"><joint name="left" axis="0 1 0" damping=".02" armature=".005"/><geom {wheel}/></body>
 <body pos="0 {-half_track} 0"><joint name="right" axis="0 1 0" damping=".02" armature=".005"/><geom {wheel}/></body>
</body></worldbody>
<actuator><velocity joint="left" kv="2" forcerange="-4 4"/><velocity joint="right" kv="2" forcerange="-4 4"/></actuator>
<sensor><accelerometer site="imu"/><velocimeter site="imu"/><gyro site="imu"/></sensor></mujoco>"""


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


class Rover:
    """The simulated machine; `steps_per_tick` physics steps make one tick of the profile's control rate.

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
        unknown = {quantity.name for quantity in profile.proprio} - _SENSED - set(TOLD_QUANTITIES)
        if unknown:
            raise ConfigError(
                f"profile '{profile.name}': the simulated rover does not sense {', '.join(sorted(unknown))}",
                f"it senses {', '.join(sorted(_SENSED))}",
            )
        self.profile = profile
        self._camera = profile.camera
        self._caster_name: CasterName = caster
        self._rgbd = RgbdCamera(self._camera, noise=profile.simulation.sensor_noise)
        self._period_s = 1 / profile.rates.control_hz
        self.steps_per_tick = max(1, round(self._period_s / _PHYSICS_STEP_S))
        self._half_track = profile.body.width_m / 2 - 0.03
        self.arena: Arena | None = None
        self._conditions = NOMINAL

    def reset(self, place: Arena, rng: np.random.Generator, conditions: Conditions = NOMINAL) -> None:
        """Put the rover at a random free pose of `place`.

        Args:
            place: Where.
            rng: Draws the pose, and then drives the sensor noise.
            conditions: What this machine and its camera are like until the next reset.
        """
        if self.arena is not place or self._conditions != conditions:
            self.arena, self._conditions = place, conditions
            timestep_s = self._period_s / self.steps_per_tick
            self._model = mujoco.MjModel.from_xml_string(_mjcf(place, self.profile, timestep_s, conditions))
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

    def drive(self, linear_mps: float, angular_radps: float, *, steps: int | None = None) -> None:
        """Follow a velocity command as fast as the motors' accelerations allow.

        Args:
            linear_mps: Forward.
            angular_radps: To the left.
            steps: For so many physics steps; None = for one tick.
        """
        steps = self.steps_per_tick if steps is None else steps
        limits = self.profile.limits
        dt = self._conditions.acceleration * self._period_s * (steps / self.steps_per_tick)
        slower, faster = -limits.max_deceleration_mps2 * dt, limits.max_acceleration_mps2 * dt
        turn = limits.max_angular_acceleration_radps2 * dt
        self._linear_mps += min(max(linear_mps - self._linear_mps, slower), faster)
        self._angular_radps += min(max(angular_radps - self._angular_radps, -turn), turn)
        side_mps = self._angular_radps * self._half_track
        self._data.ctrl[:] = (
            (self._linear_mps - side_mps) / _WHEEL_RADIUS_M,
            (self._linear_mps + side_mps) / _WHEEL_RADIUS_M,
        )
        mujoco.mj_step(self._model, self._data, steps)
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
        rotation = data.cam_xmat[0].reshape(3, 3)
        rgb, depth = self._rgbd.picture(
            self._caster, self._palette, data.cam_xpos[0], rotation, self._rng, self._conditions
        )
        columns = column_distances(depth, self._camera)
        ahead = free_distance(columns, self._camera, self.profile.body.corridor_half_width_m)
        return {"rgb": rgb, "depth": depth, "proprio": self._proprio(ahead)}

    def _proprio(self, free_distance_m: float) -> NDArray[np.float32]:
        data = self._data
        w, x, y, z = data.qpos[3:7]
        acceleration, velocity, rate = data.sensordata[:3], data.sensordata[3:6], data.sensordata[6:9]
        sensed = {
            "linear_vel": velocity[0],
            "angular_vel": rate[2],
            "roll": math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            "pitch": math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x)))),
            "accel_mag": math.sqrt(float(acceleration @ acceleration)),
            "min_forward_dist": free_distance_m,
        }
        return self.profile.proprio_of(sensed)
