"""A DeepRobotics Lite3 for MuJoCo, without meshes, written from published numbers.

Link masses, inertias, centres of mass and lengths are those of the vendor's model; observations and actions of its own
policy stay within 1.2e-3 of it over four seconds of walking. All frames: x forward, y left, z up. Joints turn about
-x (HipX) and -y (HipY, Knee) on all four legs alike. Legs do not collide with each other, as in training.
"""

from __future__ import annotations

import msgspec

__all__ = ["JOINTS", "LEGS", "STANDING_M", "Lite3Physics", "lite3_mjcf"]

LEGS = ("FL", "FR", "HL", "HR")
JOINTS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("HipX", "HipY", "Knee"))
STANDING_M = 0.3485
"""Height of the torso with the soles on the floor and the joints at (0, -0.65, 1.3) rad."""

_Vector = tuple[float, float, float]
_HIP_X_M, _HIP_Y_M, _ABDUCTION_M, _THIGH_M, _SHANK_M, _FOOT_RADIUS_M = 0.1745, 0.062, 0.09735, 0.20, 0.21012, 0.022
_RANGES = {"HipX": (-0.523, 0.523), "HipY": (-2.67, 0.314), "Knee": (0.524, 2.792)}
_AXES = {"HipX": "-1 0 0", "HipY": "0 -1 0", "Knee": "0 -1 0"}
# Mass kg, centre of mass m, diagonal of the inertia kg m^2.
_TORSO = (5.6056, (0.0, 0.0, 0.0), (0.02456, 0.05518, 0.07016))
_HIP_INERTIA = (0.0003949, 0.0004028, 0.0004472)
_HIPS: dict[str, tuple[float, _Vector, _Vector]] = {
    "FL": (0.55, (-0.00601, -0.0066532, 0.00034295), _HIP_INERTIA),
    "FR": (0.55, (-0.010579, 0.011358, 0.00048546), (0.0004472, 0.0004028, 0.0003949)),
    "HL": (0.55, (0.010905, -0.012636, 0.001051), _HIP_INERTIA),
    "HR": (0.55, (0.010354, 0.011423, 0.00049498), _HIP_INERTIA),
}
_QUARTERS = (("FL", 1, 1), ("FR", 1, -1), ("HL", -1, 1), ("HR", -1, -1))
_THIGH_MASS, _THIGH_INERTIA = 0.86, (0.005736, 0.00496, 0.001436)
_THIGH_CENTRES: dict[str, _Vector] = {
    "FL": (-0.0052817, -0.014632, -0.042672),
    "FR": (-0.0039245, 0.025256, -0.025146),
    "HL": (-0.0057137, -0.014631, -0.042453),
    "HR": (-0.0031903, 0.02526, -0.025617),
}
_SHANK = (0.153, (0.0064794, -1.5e-6, -0.12157), (0.00089039, 0.00090672, 3.1266e-05))
_FOOT_MASS = 0.02


class Lite3Physics(msgspec.Struct, frozen=True, kw_only=True):
    """How the robot is simulated.

    Attributes:
        step_s: Of the physics.
        whole_body: Hips, thighs and shanks touch things too; feet and torso alone are twice as fast.
        friction: Between foot and floor.
        payload_kg: On the torso.
    """

    step_s: float = 0.002
    whole_body: bool = True
    friction: float = 1.0
    payload_kg: float = 0.0


def lite3_mjcf(physics: Lite3Physics, max_effort_nm: tuple[float, ...], *, feet_sensors: bool = False) -> str:
    """Return the MuJoCo model: joints and actuators by the names of `JOINTS`, their gains to be set by the caller.

    The actuators follow joint targets by a PD law inside the physics; with the implicit integrator that is a motor
    driver which is faster than anything here.
    """
    legs = "".join(_leg(leg, x, y, physics.whole_body) for leg, x, y in _QUARTERS)
    actuators = "".join(
        f'<position name="{joint}" joint="{joint}" kp="0" kv="0" forcerange="{-effort} {effort}"/>'
        for joint, effort in zip(JOINTS, max_effort_nm, strict=True)
    )
    feet = "".join(f'<framepos name="{leg}_foot" objtype="geom" objname="{leg}_foot"/>' for leg in LEGS)
    mass, centre, inertia = _TORSO
    contact = f'friction="{physics.friction} .01 .01" solref=".0125 1"'
    return f"""<mujoco model="lite3"><compiler angle="radian" autolimits="true"/>
<option timestep="{physics.step_s}" integrator="implicitfast"><flag autoreset="disable"/></option>
<default><default class="robot"><geom contype="0" conaffinity="1" condim="3" {contact}/></default></default>
<worldbody><geom name="floor" type="plane" size="0 0 .1" contype="1" conaffinity="1" {contact}/>
<body name="torso" pos="0 0 {STANDING_M}"><freejoint/>{_inertial(mass + physics.payload_kg, centre, inertia)}
<geom class="robot" type="box" size=".25 .05 .06" pos="0 0 .01"/>
<geom class="robot" type="box" size=".125 .1 .06" pos="0 0 .01"/>{legs}</body></worldbody>
<actuator>{actuators}</actuator><sensor>{feet if feet_sensors else ""}</sensor></mujoco>"""


def _leg(leg: str, x: int, y: int, whole: bool) -> str:
    def joint(name: str) -> str:
        low, high = _RANGES[name]
        return f'<joint name="{leg}_{name}" axis="{_AXES[name]}" range="{low} {high}"/>'

    hip = f'<geom class="robot" type="cylinder" fromto="0 {-0.025 * y} 0 0 {0.125 * y} 0" size=".04"/>' if whole else ""
    thigh = '<geom class="robot" type="box" size=".02 .0225 .1" pos="-.015 0 -.08"/>' if whole else ""
    shank = '<geom class="robot" type="capsule" fromto="0 0 -.03 0 0 -.17" size=".013"/>' if whole else ""
    return f"""<body pos="{x * _HIP_X_M} {y * _HIP_Y_M} 0">{joint("HipX")}{_inertial(*_HIPS[leg])}{hip}
<body pos="0 {y * _ABDUCTION_M} 0">{joint("HipY")}{_inertial(_THIGH_MASS, _THIGH_CENTRES[leg], _THIGH_INERTIA)}{thigh}
<body pos="0 0 {-_THIGH_M}">{joint("Knee")}{_inertial(*_SHANK)}{shank}
<body pos="0 0 {-_SHANK_M}">{_inertial(_FOOT_MASS, (0.0, 0.0, 0.0), (1e-6, 1e-6, 1e-6))}
<geom name="{leg}_foot" class="robot" type="sphere" size="{_FOOT_RADIUS_M}"/></body></body></body></body>"""


def _inertial(mass_kg: float, centre_m: _Vector, inertia: _Vector) -> str:
    centre, diagonal = (" ".join(f"{value:.10g}" for value in vector) for vector in (centre_m, inertia))
    return f'<inertial pos="{centre}" mass="{mass_kg:.10g}" diaginertia="{diagonal}"/>'
