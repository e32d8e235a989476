"""`python -m policyloop.doctor GROUP SCOPE`: what `examine` starts."""

from __future__ import annotations

import os
import sys

import msgspec

from policyloop.doctor.examination import answer
from policyloop.doctor.scope import Scope

__all__ = ["main"]


def main() -> None:
    """Ask one group's questions; only the answers go to standard output, whatever vendors' libraries print there."""
    answers = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answers, "wb", buffering=0) as out:
        answer(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Scope), out.write)


if __name__ == "__main__":
    main()
