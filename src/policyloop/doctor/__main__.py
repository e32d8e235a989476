"""`python -m policyloop.doctor GROUP SCOPE`: what `examine` starts."""

from __future__ import annotations

import os
import sys

import msgspec

from policyloop.doctor.examination import answer
from policyloop.doctor.scope import Scope

out = os.fdopen(os.dup(1), "wb", buffering=0)
os.dup2(2, 1)  # vendors' libraries print what they think on standard output
answer(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Scope), out.write)
