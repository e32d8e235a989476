"""The vendor's converter at its worst: refusing, hanging, out of memory, killed. All with the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from policyloop.convert.graph import prepare
from policyloop.convert.toolkit import TOOLKIT_VERSION, Toolkit, ToolkitFailed, toolkit_directory
from policyloop.errors import ConfigError

MakeOnnx = Callable[..., bytes]


@pytest.fixture
def job(make_onnx: MakeOnnx, tmp_path: Path) -> dict[str, Any]:
    """A float16 conversion of a small network; its files are in tmp_path."""
    (tmp_path / "network.onnx").write_bytes(prepare(make_onnx()).folded)
    np.save(tmp_path / "held_out_0.npy", np.ones((2, 8), np.float32))
    return {
        "inputs": [{"shape": [1, 8], "dtype": "float32", "mean": [0.0] * 8, "std": [1.0] * 8}],
        "precision": "float16",
        "float16": [],
        "target": "rk3588",
        "algorithm": "normal",
        "method": "channel",
        "optimization_level": 3,
        "memory_bytes": 16 << 30,
        "held_out": True,
        "analyse": False,
    }


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_conversion_answers_then_simulates(toolkit: Toolkit, job: dict[str, Any], tmp_path: Path) -> None:
    stages: list[str] = []
    with toolkit.worker(job, tmp_path, time_limit_s=120) as worker:
        report = worker.convert(stages.append)
        assert report["toolkit"] == TOOLKIT_VERSION
        assert stages[0] == "import the toolkit"
        assert stages[-1] == "judge"
        outputs = np.load(tmp_path / "outputs.npy")
        answer = np.frombuffer(worker.infer(np.ones(8, np.float32).tobytes()), np.float32)
        np.testing.assert_array_equal(answer, outputs[0])
        pid = worker.process_id
    assert gone(pid)
    assert (tmp_path / "network.rknn").stat().st_size > 1000


def test_what_it_refuses_becomes_an_error_with_its_last_words(
    toolkit: Toolkit, job: dict[str, Any], tmp_path: Path
) -> None:
    whole = (tmp_path / "network.onnx").read_bytes()
    (tmp_path / "network.onnx").write_bytes(whole[: len(whole) // 2])
    with (
        toolkit.worker(job, tmp_path, time_limit_s=120) as worker,
        pytest.raises(ToolkitFailed, match="failed at 'load'") as caught,
    ):
        worker.convert()
    assert "the toolkit said:" in caught.value.message
    assert "toolkit info" in caught.value.remedy
    assert caught.value.exit_code == 1


def test_a_wrong_option_is_the_toolkits_own_complaint(toolkit: Toolkit, job: dict[str, Any], tmp_path: Path) -> None:
    with (
        toolkit.worker({**job, "target": "rk9999"}, tmp_path, time_limit_s=120) as worker,
        pytest.raises(ToolkitFailed, match="failed at 'configure'"),
    ):
        worker.convert()


def test_one_that_hangs_is_ended(toolkit: Toolkit, job: dict[str, Any], tmp_path: Path) -> None:
    with toolkit.worker(job, tmp_path, time_limit_s=0.2) as worker:
        with pytest.raises(ToolkitFailed, match=r"longer than 0\.2 s"):
            worker.convert()
        pid = worker.process_id
    assert gone(pid)


def test_one_that_is_killed_is_named(toolkit: Toolkit, job: dict[str, Any], tmp_path: Path) -> None:
    with toolkit.worker(job, tmp_path, time_limit_s=120) as worker:
        killer = threading.Timer(0.5, os.kill, (worker.process_id, signal.SIGKILL))
        killer.start()
        with pytest.raises(ToolkitFailed, match="killed by SIGKILL"):
            worker.convert()
        killer.join()


def test_one_that_dies_while_it_simulates_is_named(toolkit: Toolkit, job: dict[str, Any], tmp_path: Path) -> None:
    with toolkit.worker(job, tmp_path, time_limit_s=120) as worker:
        worker.convert()
        os.kill(worker.process_id, signal.SIGKILL)
        with pytest.raises(ToolkitFailed, match="simulate"):
            for _ in range(3):  # the first may still fit into the pipe
                worker.infer(np.ones(8, np.float32).tobytes())


def test_its_memory_is_limited(toolkit: Toolkit, job: dict[str, Any], tmp_path: Path) -> None:
    with (
        toolkit.worker({**job, "memory_bytes": 300 << 20}, tmp_path, time_limit_s=120) as worker,
        pytest.raises(ToolkitFailed, match="import the toolkit"),
    ):
        worker.convert()


def test_it_dies_with_its_parent(toolkit: Toolkit, job: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "parent.json").write_bytes(msgspec.json.encode(job))
    code = (
        "import sys, time, msgspec\nfrom pathlib import Path\nfrom policyloop.convert.toolkit import Toolkit\n"
        "job = msgspec.json.decode(Path('parent.json').read_bytes())\n"
        f"worker = Toolkit(Path({str(toolkit.directory)!r})).worker(job, Path('.'), time_limit_s=60)\n"
        "worker.convert()\nprint(worker.process_id, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(pid)


# -- the installation -------------------------------------------------------------------------


def test_it_is_looked_for_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POLICYLOOP_TOOLKIT", str(tmp_path / "here"))
    assert toolkit_directory() == tmp_path / "here"
    monkeypatch.delenv("POLICYLOOP_TOOLKIT")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert toolkit_directory() == tmp_path / "policyloop" / f"rknn-toolkit2-{TOOLKIT_VERSION}"


def test_without_it_the_remedy_is_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not installed") as caught:
        Toolkit(tmp_path / "nowhere").require()
    assert caught.value.remedy == "run `policyloop toolkit install`"
    assert caught.value.exit_code == 3


def test_a_damaged_or_outdated_installation_is_told_from_a_whole_one(toolkit: Toolkit, tmp_path: Path) -> None:
    mark = msgspec.json.decode((toolkit.directory / "installed.json").read_bytes())
    copy = tmp_path / "copy"
    copy.mkdir()
    for content, problem in (
        (b"{", "damaged"),
        (msgspec.json.encode({**mark, "pins": "numpy==1.0"}), "other versions"),
        (msgspec.json.encode(mark), "interpreter"),
    ):
        (copy / "installed.json").write_bytes(content)
        assert problem in Toolkit(copy).missing()
    assert toolkit.missing() == ""


def test_a_python_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Python that runs"):
        Toolkit(tmp_path / "env").install(str(tmp_path / "python"))


def test_a_python_without_wheels_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 3 14\n")
    python.chmod(0o755)
    with pytest.raises(ConfigError, match=r"no wheels for Python 3\.14"):
        Toolkit(tmp_path / "env").install(str(python))
    assert not (tmp_path / "env").exists()


def test_an_installation_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    old = tmp_path / "env"
    old.mkdir()
    (old / "kept").touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ntest "$1" = -c && echo 3 11 && exit\necho no space left >&2\nexit 1\n')
    python.chmod(0o755)
    with pytest.raises(ToolkitFailed, match="making an environment failed: no space left"):
        Toolkit(old).install(str(python))
    assert (old / "kept").exists()
