"""What a picture takes on the radio: bytes per pixel of JPEG and of the depth codec, whole pictures at 424x240.

python bench/step_bytes.py ../shared/data/d435i/*.npz

Each .npz holds `depth_mm`, uint16, and may hold `rgb`, uint8. Every third pixel of a picture of 1280x720 gives nine
pictures of 424x240.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from policyloop.core.profile import Stream
from policyloop.wire.depth import pack_depth
from policyloop.wire.rgb import pack_rgb

HEIGHT, WIDTH, STEP = 240, 424, 3


def main() -> None:
    """Print the mean of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+")
    stream = Stream(rgb_encoding="jpeg", jpeg_quality=85)
    for path in parser.parse_args().pictures:
        with np.load(path) as arrays:
            for name in sorted(arrays):
                views = [arrays[name][y::STEP, x::STEP][:HEIGHT, :WIDTH] for y in range(STEP) for x in range(STEP)]
                sizes = [len(pack_rgb(view, stream) if name == "rgb" else pack_depth(view)) for view in views]
                print(f"{path.name}, {name}: {np.mean(sizes) / (HEIGHT * WIDTH):.3f} bytes a pixel")


if __name__ == "__main__":
    main()
