"""The robot's end of a deployment: `policyloop receive`, one session on standard input and output."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from policyloop import __version__
from policyloop.bundle.receive import Recipient, check_bundle, receive_bundle
from policyloop.deploy.session import (
    PROTOCOL,
    Converted,
    Done,
    Greeting,
    Progress,
    Refused,
    Request,
    read_blob,
    read_line,
    write_line,
)
from policyloop.errors import ConnectionFailed, PolicyloopError, SafetyRefusal

__all__ = ["serve"]

_LOOK_S = 0.1
_TELL_S = 1.0


def serve(recipient: Recipient, received: BinaryIO, answers: BinaryIO, *, keep: int = 5, converts: bool = False) -> int:
    """Serve one session; returns the exit code.

    Args:
        recipient: This robot.
        received: From the operator.
        answers: To the operator.
        keep: How many of the newest versions stay in the store afterwards.
        converts: Convert networks for whoever may speak here.
    """
    current = recipient.store.current
    try:
        write_line(
            answers,
            Greeting(
                protocol=PROTOCOL,
                policyloop=__version__,
                profile_name=recipient.profile.name,
                profile_digest=recipient.profile.digest,
                board=recipient.board,
                current="" if current is None else current.name,
            ),
        )
        request = read_line(received, Request)
        if request.verb == "convert":
            _convert(request, recipient, received, answers, allowed=converts)
        else:
            write_line(answers, _serve(request, recipient, received, answers, keep))
    except PolicyloopError as error:
        with suppress(OSError):
            write_line(answers, Refused(message=error.message, remedy=error.remedy, exit_code=error.exit_code))
        return error.exit_code
    except OSError:  # the operator is gone: what is done is done, what is not is not
        return ConnectionFailed.exit_code
    return 0


def _convert(request: Request, recipient: Recipient, received: BinaryIO, answers: BinaryIO, *, allowed: bool) -> None:
    if not allowed:
        raise SafetyRefusal("this robot does not convert for others", "start its receiver with --convert")
    from policyloop.deploy.conversion import convert_here  # needs more than a robot's base installation

    blobs = [read_blob(received, size) for size in request.sizes]

    def tell(what: str, share: float) -> None:
        write_line(answers, Progress(text=what, share=share))

    report, rknn = convert_here(blobs, recipient.profile, request.precision, recipient.board or "rk3588", tell)
    write_line(answers, Converted(sizes=(len(report), len(rknn))))
    answers.write(report + rknn)
    answers.flush()


def _serve(request: Request, recipient: Recipient, received: BinaryIO, answers: BinaryIO, keep: int) -> Done:
    if request.verb == "check":
        return Done(version=check_bundle(received, recipient), state="checked")
    path = receive_bundle(received, recipient)
    write_line(answers, Progress(text=f"{path.name} is in the store, verified"))
    store = recipient.store
    if request.activate:
        store.activate(path)
        write_line(answers, Progress(text=f"{path.name} is current"))
        _watch(path, recipient, request.wait_s, answers)
    store.prune(keep)
    about = store.about(path)
    return Done(version=path.name, state=about.state, note=about.note)


def _watch(path: Path, recipient: Recipient, wait_s: float, answers: BinaryIO) -> None:
    """Wait until the robot's program has found out whether the version is good, and say how long it may still take."""
    started_s, told_s = time.monotonic(), -_TELL_S
    while recipient.store.state_of(path) not in ("good", "bad"):
        waited_s = time.monotonic() - started_s
        if waited_s >= wait_s:
            return
        if waited_s - told_s >= _TELL_S:
            told_s = waited_s
            write_line(answers, Progress(text=f"{path.name} has to prove itself", share=waited_s / wait_s))
        time.sleep(_LOOK_S)
