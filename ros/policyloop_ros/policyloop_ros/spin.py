"""From start to an orderly end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from policyloop.errors import PolicyloopError
from policyloop_ros.shell import Shell

__all__ = ["run"]

_LOOK_S = 0.1


def run(make: Callable[[], Shell]) -> int:
    """Run a node until SIGINT or SIGTERM; returns the exit code.

    rclpy's own handler would close the context before the last zero command is out: signals are ours.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = make()
    except PolicyloopError as error:
        get_logger("policyloop").fatal(str(error))
        rclpy.shutdown()
        return error.exit_code
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set():
            executor.spin_once(timeout_sec=_LOOK_S)
    finally:
        node.close()
        executor.shutdown(timeout_sec=2.0)
        node.destroy_node()
        rclpy.shutdown()
    return 0
