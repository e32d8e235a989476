"""The NPU of an RK3588, through RKNNLite: the vendor's runtime for Python, aarch64 only.

RKNNLite answers with codes and None instead of raising, and `load_rknn` takes any bytes: what is
wrong with them shows in `init_runtime`. Not measured here: there is no board. The logic is tested on
a double with its return conventions, loading and failing on the genuine wheel under qemu.
"""

from __future__ import annotations

import gc
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policyloop.core.spec import ArraySpec
from policyloop.core.step import Arrays
from policyloop.errors import ConfigError, IncompatibleError, VerificationError

__all__ = ["CORE_MASKS", "NPU_DEVICES", "RknnBackend", "board_npu", "npu_present"]

CORE_MASKS = {"auto": 0, "0": 1, "1": 2, "2": 4, "0_1": 3, "0_1_2": 7}
"""NPU cores by name; a small network gains nothing from more than one."""

NPU_DEVICES = (Path("/dev/dri/renderD129"), Path("/dev/rknpu"))
_COLLECT_EVERY = 5
"""Every call of `inference` leaves a reference cycle that holds its buffers, 42 kB and more
(airockchip/rknn-toolkit2#42); collecting the young generations now and then keeps memory level."""


def board_npu(compatible: Path = Path("/proc/device-tree/compatible")) -> str:
    """Return this board's NPU by its chip's name, such as `rk3588`; empty where it is none of Rockchip's."""
    try:
        found = re.search(rb"rockchip,(rk\d{4})", compatible.read_bytes())
    except OSError:
        return ""
    return found[1].decode() if found else ""


def npu_present() -> bool:
    """RKNNLite is installed and the kernel shows an NPU."""
    return find_spec("rknnlite") is not None and any(device.exists() for device in NPU_DEVICES)


class RknnBackend:
    """Runs an RKNN network on one core of the NPU.

    Args:
        network: The `.rknn` file's bytes, already verified.
        inputs: Specs of the network's inputs, in order.
        actions: Length of its output.
        toolkit: Version of the converter; the board's runtime must not be older.
        core: Key of `CORE_MASKS`.
        lite: RKNNLite, or something that behaves like it.

    Raises:
        ConfigError: RKNNLite is not installed, or the board refuses.
        IncompatibleError: The board's runtime is older than the converter.
        VerificationError: The network does not give this output.
    """

    name = "rknn"

    def __init__(
        self,
        network: bytes,
        inputs: dict[str, ArraySpec],
        actions: int,
        *,
        toolkit: str,
        core: str = "0",
        lite: Any | None = None,
    ) -> None:
        self._specs, self._actions = inputs, actions
        self._calls = 0
        self._lite = (lite or _rknn_lite())(verbose=False)
        try:
            self._open(network, core)
            self.versions = _versions(self._lite, toolkit)
            self.infer({name: np.zeros(spec.shape, spec.dtype) for name, spec in inputs.items()})
        except BaseException:
            self.close()
            raise

    def _open(self, network: bytes, core: str) -> None:
        with tempfile.TemporaryDirectory(prefix="policyloop-npu-") as private:
            path = Path(private) / "policy.rknn"
            path.write_bytes(network)  # it reads files only; the verified bytes are not on disk otherwise
            if self._lite.load_rknn(str(path)) != 0:
                raise VerificationError("RKNNLite cannot load the network", "convert it again")
            if self._lite.init_runtime(core_mask=CORE_MASKS[core]) != 0:
                raise ConfigError(
                    "the NPU's runtime does not start",
                    "check librknnrt's version and that this user may open the NPU's device; `policyloop doctor` looks",
                )

    def infer(self, inputs: Arrays) -> NDArray[np.float32]:
        """See `Backend.infer`. Pictures go in as uint8, channels last; vectors as float32."""
        feed = []
        for name, spec in self._specs.items():
            array = inputs[name][None]
            if array.ndim == 4:
                array = array.transpose(0, 2, 3, 1)
            feed.append(np.ascontiguousarray(array, np.dtype(spec.dtype)))
        outputs = self._lite.inference(inputs=feed)
        self._calls += 1
        if self._calls % _COLLECT_EVERY == 0:
            gc.collect(1)
        if outputs is None:
            raise VerificationError("the NPU gave no output", "see the kernel's log for the NPU")
        mean = np.asarray(outputs[0], np.float32).reshape(-1)
        if mean.shape != (self._actions,):
            raise VerificationError(f"the NPU's network gives {mean.shape[0]} numbers, expected {self._actions}")
        return mean

    def close(self) -> None:
        """See `Backend.close`."""
        self._lite.release()


def _rknn_lite() -> Any:
    try:
        from rknnlite.api import RKNNLite
    except ImportError as error:
        raise ConfigError(
            f"RKNNLite cannot be imported: {error}", "on the board: pip install rknn-toolkit-lite2"
        ) from error
    return RKNNLite


def _versions(lite: Any, toolkit: str) -> dict[str, str]:
    """Return toolkit, runtime and driver; IncompatibleError if the runtime is older than the converter."""
    said = str(lite.get_sdk_version() or "")
    runtime = re.search(r"(?:librknnrt|API).*?(\d+\.\d+\.\d+)", said)
    driver = re.search(r"(?:driver|DRV).*?(\d+\.\d+\.\d+)", said)
    found = runtime[1] if runtime else ""
    if found and _numbers(found) < _numbers(toolkit):
        raise IncompatibleError(
            f"the board's librknnrt is {found}, the network was converted with toolkit {toolkit}",
            f"install librknnrt {toolkit} on the board, or convert with toolkit {found}",
        )
    return {"toolkit": toolkit, "runtime": found, "driver": driver[1] if driver else ""}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])
