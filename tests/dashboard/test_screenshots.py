"""The pictures of docs/dashboard.md: what the page shows after a demo, while two robots drive."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from policyloop.bundle.store import Store
from policyloop.core.profile import load_profile
from policyloop.demo.loop import DemoSettings, run_loop
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal

PHONE = {"width": 390, "height": 844}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_pictures_of_the_docs_can_be_taken(
    serve: Callable[..., Any],
    visit: Callable[..., Any],
    drive: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Write them with `python -m pytest tests/dashboard -m long --screenshots docs/images`; that learns for longer."""
    wanted = request.config.getoption("--screenshots", default=None)
    folder = Path(wanted or tmp_path / "images").absolute()
    folder.mkdir(exist_ok=True, parents=True)
    monkeypatch.chdir(tmp_path)
    text = files("policyloop.profiles").joinpath("rover-mini.toml").read_text()
    finer = text.replace("width = 64", "width = 128").replace("height = 36", "height = 72")  # worth a picture
    Path("rover.toml").write_text(finer)
    profile = load_profile("rover.toml")
    assert profile.camera is not None
    assert (profile.camera.width, profile.camera.height) == (128, 72)
    settings = DemoSettings(out=Path("demo"), minutes=12.0 if wanted else 2.5, profile="rover.toml", episodes=2)
    run_loop(settings, threading.Event(), lambda *progress: None)
    journal = Journal(Path("demo/journal"), profile, writable=True)
    gateway = Gateway(journal, profile, "tcp://127.0.0.1:0")
    gateway.start()
    try:
        learned = Store(Path("demo/store")).current
        robots = {"rover-7": drive(profile, gateway.address, "rover-7", bundle=learned)}
        robots["rover-8"] = drive(profile, gateway.address, "rover-8")
        served = serve(
            Path("demo/journal"), Path("demo/runs"), Path("demo/store"), {"rover-7": robots["rover-7"].socket}
        )
        wide = visit(served.url)
        for name in robots:
            wide.get_by_label(f"robot {name}", exact=True).get_by_text("live,").wait_for()
        wide.wait_for_timeout(30_000 if wanted else 500)  # something to see
        pages = {"desktop": wide}
        pages["phone"] = visit(served.url, PHONE, phone=True)
        pages["dark"] = visit(served.url, PHONE, phone=True, dark=True)
        for page in (pages["phone"], pages["dark"]):
            page.get_by_label("robot rover-8", exact=True).get_by_text("live,").wait_for()
            page.wait_for_timeout(1_500)
        pages["learner"] = wide
        for name, page in pages.items():
            if name == "learner":
                page.evaluate("document.getElementById('learner').scrollIntoView()")
            path = folder / f"dashboard-{name}.png"
            with Image.open(io.BytesIO(page.screenshot())) as picture:
                picture.convert("RGB").quantize(256).save(path, optimize=True)
            assert 5_000 < path.stat().st_size < 200_000
    finally:
        gateway.close()
        journal.close()
