from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from policyloop.core.npz import load_npz


def packed(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_arrays_come_back_by_name() -> None:
    data = packed(a=np.arange(3), b=np.ones((2, 2), np.float32))
    assert {name: array.shape for name, array in load_npz(data, 10_000).items()} == {"a": (3,), "b": (2, 2)}
    with pytest.raises(ValueError, match="at most 100 are allowed"):
        load_npz(data, 100)


def test_a_header_that_claims_more_than_there_is_takes_no_memory() -> None:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (1 << 45,)})
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.npy", member.getvalue() + bytes(64))
    with pytest.raises(ValueError, match="a header claims"):
        load_npz(data.getvalue(), 10_000)


def test_a_flipped_bit_anywhere_is_an_array_or_a_value_error() -> None:
    whole = packed(a=np.arange(200.0))
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        try:
            load_npz(damaged, 10_000)
        except ValueError:
            continue


def test_objects_are_never_unpickled() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        load_npz(packed(a=np.array([{}], object)), 10_000)
