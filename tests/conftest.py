"""What every test may use: the small profile and steps that fit a profile."""

from __future__ import annotations

import getpass
import json
import math
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import onnx
import pytest
import simplejpeg
import torch
from onnx import TensorProto, helper, numpy_helper

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.convert.importer import import_policy
from policyloop.convert.toolkit import Toolkit
from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.reward import reward_terms
from policyloop.core.step import Action, Arrays, Behaviour, Command, Source, Stamps, Step, StepRecord
from policyloop.learn.networks import make_network
from policyloop.runtime.policy import Policy

hypothesis.settings.register_profile("policyloop", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("policyloop")


def _observation(profile: RobotProfile, rng: np.random.Generator) -> Arrays:
    arrays: Arrays = {}
    for name, spec in profile.observation_specs.items():
        if name == "rgb":
            height, width, _ = spec.shape
            rows = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 55, width)[None, :, None]
            arrays[name] = (rows + rng.integers(0, 32, (1, 1, 3))).astype(np.uint8)
        elif name == "depth":
            depth = rng.integers(300, 9000, spec.shape[1], dtype=np.uint16)[None, :].repeat(spec.shape[0], axis=0)
            depth[rng.random(spec.shape) < 0.05] = 0
            arrays[name] = depth
        else:
            arrays[name] = rng.normal(size=spec.shape).astype(np.float32)
            if "min_forward_dist" in [quantity.name for quantity in profile.proprio]:
                arrays[name][profile.proprio_index("min_forward_dist")] = rng.uniform(0.7, 3.0)
    return arrays


def _action(profile: RobotProfile, source: Source, rng: np.random.Generator) -> Action:
    size = len(profile.action)
    mean, noise = rng.normal(size=size), rng.normal(size=size)
    log_std = np.full(size, -0.5)
    sample = mean + np.exp(log_std) * noise
    values = tuple((profile.action_center + profile.action_half_range * np.tanh(sample)).tolist())
    if source != "policy":
        return Action(values, source)
    log_prob = float((-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)).sum())
    behaviour = Behaviour(
        mean=tuple(mean.tolist()),
        log_std=tuple(log_std.tolist()),
        sample=tuple(sample.tolist()),
        log_prob=log_prob,
        policy_version=1,
        policy_digest="0" * 64,
        backend="test",
    )
    return Action(values, source, behaviour)


def _make_step(
    profile: RobotProfile,
    sequence: int = 0,
    episode: int = 0,
    index: int | None = None,
    source: Source = "policy",
    **changes: Any,
) -> Step:
    rng = np.random.default_rng([sequence, episode])
    observation = changes.pop("observation", None) or _observation(profile, rng)
    ended = changes.get("terminated", False) or changes.get("truncated", False)
    final = changes.pop("final_observation", _observation(profile, rng) if ended else None)
    action = changes.get("action") or _action(profile, source, rng)
    terms = reward_terms(profile.reward, profile.outcome(observation["proprio"])) if profile.reward else {}
    captured_ns = 1_000_000_000 + sequence * profile.rates.period_ns
    fields: dict[str, Any] = {
        "robot": "r0",
        "boot": "b0",
        "sequence": sequence,
        "episode": episode,
        "index": sequence if index is None else index,
        "profile_digest": profile.digest,
        "stamps": Stamps(captured_ns, captured_ns + 5_000_000, captured_ns + 6_000_000),
        "previous_command": tuple(0.0 for _ in profile.action),
        "action": action,
        "command": Command(action.values),
        "reward_terms": terms,
        "wall_clock_s": 1_700_000_000.0 + 0.1 * sequence,
    }
    return Step(StepRecord(**{**fields, **changes}), observation, final)


@pytest.fixture(scope="session")
def mini() -> RobotProfile:
    """The rover with a 64x36 camera."""
    return load_profile("rover-mini")


@pytest.fixture(scope="session")
def exported(mini: RobotProfile) -> Bundle:
    """A real policy for rover-mini: manifest and network."""
    torch.manual_seed(0)
    return export_bundle(
        make_network("spatial", mini),
        mini,
        mini.nominal_normalizer,
        network_name="spatial",
        version=7,
        noise_hold_ticks=3,
        observations=probe_features(mini, 2),
        training={"learner": "bc", "steps": 4000},
    )


@pytest.fixture(scope="session")
def make_onnx() -> Callable[..., bytes]:
    """Return `make_onnx(operator="Relu", opset=17, shape=(1, 8))`: Gemm, one operator, Gemm."""

    def make(
        operator: str = "Relu",
        opset: int = 17,
        shape: tuple[int | str, ...] = (1, 8),
        outputs: int = 1,
        **attributes: float,
    ) -> bytes:
        rng = np.random.default_rng(0)
        weights = [
            numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name)
            for name, size in (("w1", (8, 16)), ("w2", (16, 3)))
        ]
        nodes = [
            helper.make_node("Gemm", ["obs", "w1"], ["a"], name="first"),
            helper.make_node(operator, ["a"], ["b"], name="middle", **attributes),
            helper.make_node("Gemm", ["b", "w2"], ["actions"], name="last"),
        ]
        found = [helper.make_tensor_value_info("actions", TensorProto.FLOAT, (shape[0], 3))]
        if outputs == 2:
            found.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, (shape[0], 16)))
        inputs = [helper.make_tensor_value_info("obs", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(nodes, "policy", inputs, found, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    return make


_WALKER = """
name = "walker"

[[proprio]]
name = "joints"
unit = "rad"
size = 6
scale = 0.5

[[proprio]]
name = "lean"
unit = "rad"
size = 2
center = 0.1

[[action]]
name = "hip"
unit = "rad"
low = -0.5
high = 0.5

[[action]]
name = "knee"
unit = "rad"
low = -0.2
high = 1.0

[[action]]
name = "ankle"
unit = "rad"
low = -0.3
high = 0.3
"""


@pytest.fixture(scope="session")
def walker_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile of a robot without a camera, of the sizes of `make_onnx`: 8 numbers observed, 3 actions."""
    path = tmp_path_factory.mktemp("profile") / "walker.toml"
    path.write_text(_WALKER)
    return path


@pytest.fixture(scope="session")
def walker(walker_file: Path) -> RobotProfile:
    """See `walker_file`."""
    return load_profile(walker_file)


@pytest.fixture(scope="session")
def toolkit() -> Toolkit:
    """The vendor's converter, the real one; the test is skipped, loudly, where it could not be installed."""
    found = Toolkit()
    if problem := found.missing():
        pytest.skip(f"NOT TESTED, {problem}: run `make test`, or `policyloop toolkit install`")
    return found


@pytest.fixture(scope="session")
def lite3() -> RobotProfile:
    """The quadruped, as it ships."""
    return load_profile("lite3")


@pytest.fixture(scope="session")
def lite3_policy_file() -> Path:
    """The Lite3's vendor's own policy; the test is skipped, loudly, where its file is not.

    It is not ours to give away: policy.onnx of Lite3_rl_deploy 7871b47.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "lite3" / "policy.onnx"
    path = Path(os.environ.get("LITE3_POLICY", beside))
    if not path.is_file():
        pytest.skip("NOT TESTED, the Lite3's policy is not here: let LITE3_POLICY be the vendor's policy.onnx")
    return path


@pytest.fixture(scope="session")
def lite3_bundle(lite3: RobotProfile, lite3_policy_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vendor's policy, imported; see `lite3_policy_file`."""
    return Store(tmp_path_factory.mktemp("lite3")).add(import_policy(lite3_policy_file, lite3))


@pytest.fixture(scope="session")
def lite3_policy(lite3: RobotProfile, lite3_bundle: Path) -> Iterator[Policy]:
    """The vendor's policy, opened; see `lite3_policy_file`."""
    policy = Policy.load(lite3_bundle, lite3)
    yield policy
    policy.close()


@pytest.fixture(scope="session")
def make_step() -> Callable[..., Step]:
    """Return `make_step(profile, sequence=0, episode=0, index=None, source="policy", **changes)`.

    The arrays are seeded by sequence and episode. `changes` replaces fields of the record, and
    `observation` or `final_observation` of the step; a step that ends an episode gets a final
    observation unless one is given (None = without).
    """
    return _make_step


def _v1_packet(profile: RobotProfile, **changes: Any) -> bytes:
    specs = profile.observation_specs
    rng = np.random.default_rng(0)
    arrays = {
        "rgb": np.full(specs["rgb"].shape, 90, np.uint8),
        "depth": rng.uniform(0.5, 5.0, specs["depth"].shape).astype(np.float32),
        "proprio": np.array([0.1, -0.2, 0.01, -0.02, 9.81, 2.5], np.float32),
        "action": np.array([0.12, -0.3], np.float32),
    }
    arrays |= {name: changes.pop(name) for name in arrays if name in changes}
    metadata: dict[str, Any] = {"timestamp": 1_700_000_000.5, "episode_step": 0, "reward": 0.25, "done": False}
    metadata |= {f"{name}_shape": list(array.shape) for name, array in arrays.items()}
    metadata |= {"rgb_compressed": True, **changes}
    picture = arrays["rgb"].tobytes()
    if metadata["rgb_compressed"]:
        picture = simplejpeg.encode_jpeg(arrays["rgb"], quality=85, colorspace="RGB")
    text = json.dumps(metadata).encode()
    numbers = b"".join(arrays[name].astype("<f4").tobytes() for name in ("depth", "proprio", "action"))
    return struct.pack("<I", len(text)) + text + picture + numbers


@pytest.fixture(scope="session")
def make_v1_packet() -> Callable[..., bytes]:
    """Return `make_v1_packet(profile, **changes)`: the bytes that a v1 robot would send.

    `rgb`, `depth` (m), `proprio` and `action` replace the arrays, anything else replaces metadata.
    """
    return _v1_packet


@pytest.fixture
def until() -> Callable[..., None]:
    """Return `until(condition, seconds=60)`: poll until `condition()` holds; fails after the deadline."""

    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    return wait


@pytest.fixture
def handles_sigterm() -> Callable[[int], bool]:
    """Return `handles_sigterm(pid)`: whether a process has come so far as to end in order when it is asked to."""

    def check(pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    return check


@pytest.fixture
def full_disk() -> Callable[[int], Any]:
    """Return a context in which no file may grow beyond some size."""

    @contextmanager
    def limit(size_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


class Sshd(NamedTuple):
    """A real ssh server on this machine, and what it takes to get in.

    Attributes:
        config: Of an ssh client: host `robot` is the server.
        authorized: What the server allows; rewrite it to tie the key to a command.
        known: The client's known hosts.
        public: The key that it allows.
        host_key: The server's own, as known_hosts has it.
    """

    config: Path
    authorized: Path
    known: Path
    public: str
    host_key: str
    port: int

    def configured(self, name: str, *lines: str) -> Path:
        """Write another client configuration with more lines in it; what comes first counts."""
        path = self.config.with_name(name)
        path.write_text("\n".join(["Host robot", *lines, self.config.read_text()]))
        return path


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """OpenSSH's own server on a loopback port; the test is skipped, loudly, where it is not installed."""
    program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("NOT TESTED, there is no sshd: apt install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = getpass.getuser()
    if user == "root":
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nMaxStartups 100\n"
    )
    public, host_key = (folder / "user.pub").read_text(), f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}"
    (folder / "authorized").write_text(public)
    (folder / "known").write_text(host_key)
    (folder / "config").write_text(
        f"Host robot\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentityFile {folder}/user\n"
        f"  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {folder}/known\n"
        "  GlobalKnownHostsFile none\n"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        deadline = time.monotonic() + 20
        while b"listening" not in (folder / "log").read_bytes():
            assert time.monotonic() < deadline and server.poll() is None, (folder / "log").read_text()
            time.sleep(0.02)
        yield Sshd(folder / "config", folder / "authorized", folder / "known", public, host_key, port)
    finally:
        server.kill()
        server.wait()
