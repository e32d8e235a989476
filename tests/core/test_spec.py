import numpy as np
import pytest

from policyloop.core.spec import ArraySpec
from policyloop.errors import IncompatibleError

SPEC = ArraySpec(name="proprio", shape=(2, 3), dtype="float32")


def test_a_value_that_fits_is_accepted():
    SPEC.validate(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), ()])
def test_another_shape_is_refused_by_name(shape):
    with pytest.raises(IncompatibleError, match="proprio: shape"):
        SPEC.validate(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, ">f4"])
def test_another_dtype_is_refused_by_name(dtype):
    with pytest.raises(IncompatibleError, match="proprio: dtype"):
        SPEC.validate(np.zeros((2, 3), dtype))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_number_that_is_not_finite_is_pointed_at(bad):
    value = np.zeros((2, 3), np.float32)
    value[1, 0] = value[1, 2] = bad
    with pytest.raises(IncompatibleError, match=r"proprio: not finite at index \(1, 0\)"):
        SPEC.validate(value)


def test_integers_need_no_check_for_finiteness():
    ArraySpec(name="depth", shape=(2,), dtype="uint16").validate(np.array([0, 65535], np.uint16))


@pytest.mark.parametrize(
    ("shape", "dtype", "nbytes"), [((2, 3), "float32", 24), ((5,), "uint16", 10), ((), "uint8", 1)]
)
def test_nbytes_is_the_size_of_one_value(shape, dtype, nbytes):
    assert ArraySpec(name="x", shape=shape, dtype=dtype).nbytes == nbytes
