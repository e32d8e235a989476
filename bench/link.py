"""What streaming costs: CPU per step against the v1 framing and gRPC, and a gateway with many encrypted robots.

python bench/link.py framing [--steps 600] [--rounds 3]     (gRPC needs: pip install grpcio)
python bench/link.py gateway [--robots 64] [--rate 30] [--seconds 20]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import resource
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import zmq
from machine import machine

from policyloop.core.profile import RobotProfile, load_profile
from policyloop.core.step import Action, Behaviour, Command, Stamps, Step, StepRecord
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.link.keys import AllowList, create_identity
from policyloop.link.uplink import Uplink
from policyloop.wire.codec import decode_from_robot, encode
from policyloop.wire.messages import StepHeader

Sender = Callable[[int, int], None]
"""Called with (port, steps)."""
Receiver = Callable[[Connection, int], None]
"""Called with (where to tell the port, steps)."""


def record(profile: RobotProfile, sequence: int, robot: str = "r0", boot: str = "b0") -> StepRecord:
    """Return a record as a driving policy makes it."""
    zeros = tuple(0.1 for _ in profile.action)
    behaviour = Behaviour(
        mean=zeros, log_std=zeros, sample=zeros, log_prob=-1.0, policy_version=1, policy_digest="0" * 64, backend="onnx"
    )
    return StepRecord(
        robot=robot,
        boot=boot,
        sequence=sequence,
        episode=sequence // 300,
        index=sequence % 300,
        profile_digest=profile.digest,
        stamps=Stamps(1, 2, 3),
        previous_command=zeros,
        action=Action(zeros, "policy", behaviour),
        command=Command(zeros),
        reward_terms={"forward": 0.5, "spin": -0.1, "close": 0.0, "near": 0.0, "time": -0.01},
    )


def payload() -> tuple[bytes, np.ndarray[Any, Any], bytes]:
    """Return one JPEG, one depth picture and one proprioception vector of 424x240."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (30, 53, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    depth = rng.integers(300, 6000, (240, 424), dtype=np.uint16)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=85), depth, np.zeros(6, np.float32).tobytes()


def connected(kind: int, port: int) -> zmq.Socket[bytes]:
    """Return a socket that sends to `port`."""
    socket = zmq.Context.instance().socket(kind)
    socket.connect(f"tcp://127.0.0.1:{port}")
    return socket


def bound(kind: int, ready: Connection) -> zmq.Socket[bytes]:
    """Return a socket that listens, and tell where."""
    socket = zmq.Context.instance().socket(kind)
    ready.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    return socket


def send_ours(port: int, steps: int) -> None:
    """A header per step, then the arrays as they lie in memory."""
    profile, (jpeg, depth, proprio) = load_profile("rover"), payload()
    socket = connected(zmq.DEALER, port)
    for i in range(steps):
        header = encode(StepHeader(record=record(profile, i)))
        socket.send_multipart([header, jpeg, depth.reshape(-1).view(np.uint8), proprio], copy=False)
    socket.close(linger=-1)


def receive_ours(ready: Connection, steps: int) -> None:
    """See `send_ours`."""
    socket = bound(zmq.ROUTER, ready)
    for _ in range(steps):
        _, header, _, depth, proprio = socket.recv_multipart(copy=False)
        decode_from_robot(header.bytes)
        np.frombuffer(depth.buffer, np.uint16).reshape(240, 424)
        np.frombuffer(proprio.buffer, np.float32)


def send_v1(port: int, steps: int) -> None:
    """One frame: JSON, JPEG, float32 depth, proprioception, action."""
    jpeg, depth, proprio = payload()
    action = np.zeros(2, np.float32)
    socket = connected(zmq.PUSH, port)
    for i in range(steps):
        metres = depth.astype(np.float32) * np.float32(0.001)
        shapes = {"rgb_shape": [240, 424, 3], "depth_shape": [240, 424], "proprio_shape": [6], "action_shape": [2]}
        metadata = json.dumps(
            {
                "timestamp": time.time(),
                "episode_step": i,
                "reward": 0.1,
                "done": False,
                "rgb_compressed": True,
                **shapes,
            }
        ).encode()
        parts = [struct.pack("<I", len(metadata)), metadata, jpeg, metres.tobytes(), proprio, action.tobytes()]
        socket.send(b"".join(parts))
    socket.close(linger=-1)


def receive_v1(ready: Connection, steps: int) -> None:
    """See `send_v1`."""
    socket = bound(zmq.PULL, ready)
    for _ in range(steps):
        data = socket.recv()
        (length,) = struct.unpack_from("<I", data)
        json.loads(data[4 : 4 + length])
        tail = data[-(2 * 4 + 6 * 4 + 240 * 424 * 4) :]
        np.frombuffer(tail[: 240 * 424 * 4], np.float32).reshape(240, 424).copy()
        np.frombuffer(tail[240 * 424 * 4 :], np.float32).copy()


def send_grpc(port: int, steps: int) -> None:
    """The same bytes as ours, one message per step on a client stream, without protobuf's own cost."""
    import grpc

    profile, (jpeg, depth, proprio) = load_profile("rover"), payload()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = channel.stream_unary("/bench/Steps", request_serializer=None, response_deserializer=None)
        stream(
            b"".join([encode(StepHeader(record=record(profile, i))), jpeg, depth.tobytes(), proprio])
            for i in range(steps)
        )


def receive_grpc(ready: Connection, steps: int) -> None:
    """See `send_grpc`."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    done = threading.Event()

    def take(messages: Any, context: Any) -> bytes:
        for message in messages:
            np.frombuffer(message[-24 - 203_520 : -24], np.uint16).reshape(240, 424)
        done.set()
        return b""

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.stream_unary_rpc_method_handler(take)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"Steps": handler}),))
    ready.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    done.wait()
    server.stop(1).wait()


def _cpu_of(work: Callable[..., None], result: Connection, *arguments: Any) -> None:
    """Run `work` and report the CPU time that it took."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work(*arguments)
    after = resource.getrusage(resource.RUSAGE_SELF)
    result.send(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def cost_ms(send: Sender, receive: Receiver, steps: int) -> tuple[float, float]:
    """Return the CPU milliseconds per step of sender and receiver, two processes."""
    spawn = multiprocessing.get_context("spawn")
    port_in, port_out = spawn.Pipe(duplex=False)
    sent_in, sent_out = spawn.Pipe(duplex=False)
    received_in, received_out = spawn.Pipe(duplex=False)
    receiver = spawn.Process(target=_cpu_of, args=(receive, received_out, port_out, steps))
    receiver.start()
    sender = spawn.Process(target=_cpu_of, args=(send, sent_out, port_in.recv(), steps))
    sender.start()
    sender.join()
    if sender.exitcode:
        receiver.terminate()
        raise SystemExit("the sender failed")
    receiver.join()
    return 1e3 * sent_in.recv() / steps, 1e3 * received_in.recv() / steps


def framing(steps: int, rounds: int) -> None:
    """Print CPU per step of each framing, interleaved, the median of some rounds."""
    ways: dict[str, tuple[Sender, Receiver]] = {
        "policyloop": (send_ours, receive_ours),
        "v1": (send_v1, receive_v1),
    }
    if importlib.util.find_spec("grpc"):
        ways["gRPC stream"] = (send_grpc, receive_grpc)
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (send, receive) in ways.items():
            costs[name].append(cost_ms(send, receive, steps))
    medians = {name: np.median(values, axis=0) for name, values in costs.items()}
    ours = medians["policyloop"].sum()
    print("| framing | sender ms | receiver ms | sum / ours |\n|---|---|---|---|")
    for name, (sent, received) in medians.items():
        print(f"| {name} | {sent:.3f} | {received:.3f} | {(sent + received) / ours:.2f} |")


def robots(count: int, rate_hz: float, seconds: float, address: str, keys: Path, gateway_key: str) -> list[float]:
    """Stream small steps from `count` robots of this process; returns the delay of each acknowledgement, s."""
    from policyloop.link.keys import load_identity

    profile, identity = load_profile("rover-mini"), load_identity(keys)
    rng = np.random.default_rng(0)
    arrays = {
        "rgb": np.zeros((36, 64, 3), np.uint8),
        "depth": rng.integers(300, 9000, (1, 64), dtype=np.uint16).repeat(36, 0),
        "proprio": np.zeros(6, np.float32),
    }
    uplinks = [
        Uplink(address, profile, f"bench-{i}", keys / f"spool-{i}", identity=identity, gateway_key=gateway_key)
        for i in range(count)
    ]
    due = [time.monotonic() + 1 + i / (count * rate_hz) for i in range(count)]
    stop_s = time.monotonic() + 1 + seconds
    sent: list[list[float]] = [[] for _ in uplinks]
    acknowledged = [0] * count
    delays = []
    while time.monotonic() < stop_s or any(uplink.pending for uplink in uplinks):
        for i, uplink in enumerate(uplinks):
            now_s = time.monotonic()
            if now_s >= due[i] and now_s < stop_s:
                due[i] += 1 / rate_hz
                step = record(profile, len(sent[i]), uplink.robot, uplink.boot)
                sent[i].append(now_s)
                uplink.append(Step(step, arrays))
            uplink.pump()
            while acknowledged[i] < len(sent[i]) - uplink.pending:
                delays.append(time.monotonic() - sent[i][acknowledged[i]])
                acknowledged[i] += 1
        time.sleep(0.001)
    for uplink in uplinks:
        uplink.close()
    return delays


def _robots_process(result: Connection, *arguments: Any) -> None:
    result.send(robots(*arguments))


def gateway(count: int, rate_hz: float, seconds: float) -> None:
    """Print how long acknowledgements take, and whether a step was lost."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="policyloop-bench-") as folder:
        trainer, robot = create_identity(Path(folder) / "t", "trainer"), create_identity(Path(folder) / "r", "bench")
        allowed = AllowList(Path(folder) / "t")
        allowed.allow("bench", robot.public)
        journal = Journal(Path(folder) / "journal", load_profile("rover-mini"), writable=True)
        listening = Gateway(journal, journal.profile, "tcp://127.0.0.1:*", identity=trainer, allowed=allowed)
        listening.start()
        result_in, result_out = spawn.Pipe(duplex=False)
        arguments = (result_out, count, rate_hz, seconds, listening.address, Path(folder) / "r", trainer.public)
        process = spawn.Process(target=_robots_process, args=arguments)
        before = time.process_time()
        process.start()
        delays = 1e3 * np.array(result_in.recv())
        process.join()
        cpu_s = time.process_time() - before
        listening.close()
        listening.check()
        stored = sum(1 for _ in journal.headers())
        journal.close()
    print(
        f"{count} robots at {rate_hz:g} Hz with CURVE for {seconds:g} s: {len(delays)} steps sent, "
        f"{len(delays) - stored} lost; acknowledged after {np.median(delays):.0f} ms "
        f"(p99 {np.percentile(delays, 99):.0f}, worst {delays.max():.0f}); "
        f"gateway {100 * cpu_s / seconds:.0f} % of a core"
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["framing", "gateway"])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--robots", type=int, default=64)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    print(machine())
    if arguments.what == "framing":
        framing(arguments.steps, arguments.rounds)
    else:
        gateway(arguments.robots, arguments.rate, arguments.seconds)


if __name__ == "__main__":
    main()
