"""What lower precision costs a policy: the same clones, taught in float32 and in bfloat16, driven in float32.

python bench/precision.py --frames 3000 --seeds 3
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from machine import machine
from networks import demonstrations, held_out

from policyloop.core.profile import load_profile
from policyloop.learn.bc import BcSettings, clone
from policyloop.learn.device import keep_freed_memory
from policyloop.learn.networks import make_network
from policyloop.learn.tuning import Execution

WAYS = (Execution(), Execution(channels_last=True), Execution(channels_last=True, precision="bfloat16"))


def main() -> None:
    """Print one row per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="rover-mini")
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    profile = load_profile(arguments.profile)
    print(machine())
    training = demonstrations(profile, arguments.frames, range(48), 0)
    judging = demonstrations(profile, max(200, arguments.frames // 4), range(5000, 5010), 1)
    print("| precision | layout | turn RMSE by seed | right side | CPU s |\n|---|---|---|---|---|")
    for way in WAYS:
        errors, sides, spent_s = [], [], []
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            network = make_network("spatial", profile)
            way.lay_out(network)
            started_s = time.process_time()
            with way.applied_to(network):
                clone(
                    network,
                    training,
                    profile,
                    BcSettings(epochs=arguments.epochs),
                    generator=torch.Generator().manual_seed(seed),
                    device=torch.device("cpu"),
                )
            spent_s.append(time.process_time() - started_s)
            error, side = held_out(network, judging, profile)
            errors.append(error)
            sides.append(side)
        layout = "channels last" if way.channels_last else "channels first"
        print(
            f"| {way.precision} | {layout} | {' / '.join(f'{error:.3f}' for error in errors)} | "
            f"{' / '.join(f'{side:.2f}' for side in sides)} | {np.mean(spent_s):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
