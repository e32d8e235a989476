"""The report: one page that needs nothing else, and the same numbers as JSON."""

from __future__ import annotations

import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from policyloop.bundle.store import Store
from policyloop.convert.export import export_bundle, probe_features
from policyloop.core.profile import RobotProfile
from policyloop.demo.loop import DemoResult, DemoSettings
from policyloop.demo.report import table_rows, write_report
from policyloop.demo.trail import record_trail, scene
from policyloop.errors import StorageError
from policyloop.evaluate import EvaluationReport
from policyloop.learn.networks import make_network


@pytest.fixture(scope="module")
def folder(mini: RobotProfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of one untrained policy of the small rover."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bundle = export_bundle(
        make_network("spatial", mini),
        mini,
        mini.nominal_normalizer,
        network_name="spatial",
        version=1,
        noise_hold_ticks=1,
        observations=probe_features(mini, 1),
        training={},
    )
    directory = tmp_path_factory.mktemp("demo")
    store = Store(directory / "store")
    store.activate(store.add(bundle))
    return directory


def report(driver: str, gate: str, mean: float) -> EvaluationReport:
    return EvaluationReport(
        driver=driver,
        gate=gate,
        episodes=2,
        return_mean=mean,
        return_ci=(mean - 10.4, mean + 10.4),
        return_median=mean,
        return_iqm=mean,
        returns=(mean - 1, mean + 1),
        collision_rate=0.5,
        distance_m=12.34,
        interventions=3.25,
    )


def result_of(first: str, *, learned: float, updates: int) -> DemoResult:
    drivers = [("scripted", "limits", 300.0), ("random", "limits", -80.0), (first, "limits", 100.0)]
    drivers += [("learned", "limits", learned), (f"{first} + gate", "full", 90.0), ("learned + gate", "full", 190.0)]
    progress: list[dict[str, Any]] = [{"step": 0, "version": 1, "bc_loss": 0.1}]
    progress += [
        {"step": 1000 * i, "update": i, "version": 1 + i, "episode_score": -20.0 + 30 * i}
        for i in range(1, updates + 1)
    ]
    return DemoResult(
        seed=3,
        minutes=10,
        machine="2 cores <&>",
        drivers={name: report(name, gate, mean) for name, gate, mean in drivers},
        clone="store/current",
        best="store/current",
        progress=progress,
        swaps=1 + updates,
        phases_s={"a": 60.0, "b": 30.0},
    )


RESULT = result_of("clone", learned=200.0, updates=3)


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    """The page of RESULT."""
    return write_report(RESULT, DemoSettings(out=folder))


class Outline(HTMLParser):
    """Collects tags, the addresses that they point at, and the cells of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td" and self.cells:
            self.cells[-1] += data


def outline(page: Path) -> Outline:
    parsed = Outline()
    parsed.feed(page.read_text(encoding="utf-8"))
    return parsed


def test_the_table_says_what_the_drivers_did() -> None:
    rows = table_rows(RESULT)
    assert rows[0] == ("scripted", "300.0", "290 .. 310", "50%", "12.3", "-")
    assert rows[5] == ("learned + gate", "190.0", "180 .. 200", "50%", "12.3", "3.2")
    assert len(rows) == 6


def test_the_page_holds_the_table_and_the_curve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    cells = [cell.strip() for cell in outline(page).cells]
    assert cells == [cell for row in table_rows(RESULT) for cell in row]
    assert "3000 steps" in text
    points = re.search(r'class="curve" points="([^"]*)"', text)
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points[1].split()]
    assert heights == sorted(heights, reverse=True)  # upwards, by equal steps
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert "with a mean return of 200, better than its clone (100)" in text
    assert "2 cores &lt;&amp;&gt;" in text
    assert "$" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)  # every placeholder was filled


def test_the_page_needs_no_network(page: Path) -> None:
    parsed = outline(page)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert "link" not in parsed.open


def test_the_json_reads_back_as_the_result(page: Path) -> None:
    assert msgspec.json.decode(page.with_name("report.json").read_bytes(), type=DemoResult) == RESULT


def test_a_short_demo_from_nothing_has_a_page_too(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "store", tmp_path / "store", symlinks=True)
    result = result_of("untrained", learned=50.0, updates=1)
    text = write_report(result, DemoSettings(out=tmp_path)).read_text(encoding="utf-8")
    assert "no better than its untrained self (100)" in html.unescape(text)
    assert "Too few updates for a curve." in text


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(StorageError, match="cannot write") as caught:
        write_report(RESULT, DemoSettings(out=tmp_path))
    assert caught.value.exit_code == 1


def test_a_trail_is_an_episode_with_its_pictures(mini: RobotProfile) -> None:
    trail = record_trail(mini, "scripted", "teacher", 10_000, pictures=True)
    assert trail.driver == "teacher"
    assert len(trail.rgb) == len(trail.depth) == -(-len(trail.path) // 2)
    assert not trail.collided
    steps = np.diff(np.array(trail.path)[:, :2], axis=0)
    assert np.linalg.norm(steps, axis=1).max() < 0.08  # no faster than 0.6 m/s at 10 Hz
    assert record_trail(mini, "scripted", "teacher", 10_000).path == trail.path


def test_the_scene_is_the_arena_of_its_seed(mini: RobotProfile) -> None:
    place = scene(mini, 10_000)
    assert place.half_size_m == mini.simulation.half_size_m
    assert len(place.solids) >= mini.simulation.obstacles
    assert scene(mini, 10_000) == place != scene(mini, 10_001)
