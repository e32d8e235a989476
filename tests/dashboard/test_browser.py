"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyloop.bundle.build import Bundle
from policyloop.bundle.signing import KeyRing, create_signer, sign_bundle
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.core.step import Command, Step
from policyloop.link.gateway import Gateway
from policyloop.link.journal import Journal
from policyloop.wire.codec import encode_step

Serve = Visit = Drive = Callable[..., Any]
MakeStep = Callable[..., Step]
WaitFor = Callable[[Callable[[], object]], None]

PHONE = {"width": 390, "height": 844}
TOKEN = "field-laptop-" * 4
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\u202e"\'`${window.hacked=1}'


@pytest.fixture
def store(exported: Bundle, tmp_path: Path) -> Store:
    """See `fill`."""
    return fill(Store(tmp_path / "store"), exported, tmp_path)


def fill(store: Store, bundle: Bundle, tmp_path: Path) -> Store:
    """Add three versions: good, good, and the current one, which must prove itself; the first two signed by ada."""
    signer = create_signer(tmp_path / "operator", "ada")
    KeyRing(tmp_path / "keys").allow("ada", signer.public)
    for version in (11, 12, 13):
        manifest = msgspec.structs.replace(bundle.manifest, version=version)
        path = store.add(msgspec.structs.replace(bundle, manifest=manifest))
        store.activate(path)
        if version < 13:
            sign_bundle(path, (path / "manifest.json").read_bytes(), signer)
            store.mark(path, "good", "300 ticks, none late, stopped by the gate as often as the one before")
    return store


def append(journal: Journal, make_step: MakeStep, sequence: int, **changes: Any) -> None:
    changes.setdefault("wall_clock_s", time.time())
    journal.append(encode_step(make_step(journal.profile, sequence, **changes), journal.profile))


def wait_until(page: Any, expression: str) -> None:
    """Ask until it is so. Playwright's own waiting evaluates text inside of the page, which the page forbids."""
    deadline_s = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < deadline_s, expression
        page.wait_for_timeout(50)


def is_grey(page: Any, selector: str) -> bool:
    return "grayscale(1)" in page.eval_on_selector(selector, "element => getComputedStyle(element).filter")


def test_a_simulated_robots_stream_is_shown_while_it_comes(
    serve: Serve, visit: Visit, gateway: Gateway, tmp_path: Path
) -> None:
    served = serve(tmp_path / "journal")
    page = visit(served.url)
    page.get_by_text("No robot has sent a step yet").wait_for()
    robots = ["sim", "--profile", "rover-mini", "--robots", "2", "--connect", gateway.address, "--name", "twin"]
    command = [sys.executable, "-m", "policyloop", *robots, "--spool", str(tmp_path / "spool")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        card = page.get_by_label("robot twin-0", exact=True)
        card.get_by_text("live,").wait_for()
        card.get_by_text("driven by a script").wait_for()
        page.get_by_label("robot twin-1", exact=True).get_by_text("live,").wait_for()
        drawn = "document.querySelector('canvas[aria-label=\"{} of twin-0\"]')"
        for kind in ("camera", "depth"):
            wait_until(page, f"{drawn.format(kind)}.width === 64")
            wait_until(
                page,
                f"new Set({drawn.format(kind)}.getContext('2d').getImageData(0, 0, 64, 36).data).size > 20",
            )
        before = card.locator(".axis output").first.inner_text()
        wait_until(page, f"document.querySelector('.axis output').textContent !== {before!r}")
        assert " → " in before
        assert not is_grey(page, ".robot .pictures")
    finally:
        process.terminate()
        process.wait(30)
    card.get_by_text(" old").wait_for()  # nothing comes any more, and it says so
    assert is_grey(page, ".robot .pictures")


def test_what_the_gate_says_is_listed_as_it_happens(
    serve: Serve, visit: Visit, journal: Journal, make_step: MakeStep, tmp_path: Path
) -> None:
    page = visit(serve(tmp_path / "journal").url)
    append(journal, make_step, 0)
    page.get_by_text("Gate: lets it through as it is").wait_for()
    append(journal, make_step, 1, command=Command((0.0, 0.0), ("distance", "slew")))
    page.get_by_text("Gate: distance, slew").wait_for()
    lines = page.locator(".log li").all_inner_texts()
    assert lines[0].split()[:4] == ["distance,", "slew", "1", "step"]
    assert lines[1].startswith("as it is")
    append(journal, make_step, 9)
    page.get_by_text("1, 7 steps missing").wait_for()
    page.get_by_text("policy 1").first.wait_for()


def test_a_hostile_name_is_text(
    serve: Serve, visit: Visit, journal: Journal, make_step: MakeStep, tmp_path: Path
) -> None:
    page = visit(serve(tmp_path / "journal").url)
    for i, name in enumerate((HOSTILE, "__proto__", "constructor", "$(reboot)", "a" * 250)):
        append(journal, make_step, i, robot=name, command=Command((0.0, 0.0), (HOSTILE,)))
    page.get_by_role("heading", name="__proto__").wait_for()
    wait_until(page, "document.querySelectorAll('.robot').length === 5")
    assert HOSTILE in page.locator(".robot h2").all_inner_texts()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, .robot script").count() == 0
    # what cannot be typed safely into a shell is not offered for copying
    assert page.locator("code").all_text_contents().count("policyloop robot stop") == 4
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0


def test_a_robot_on_this_machine_is_stopped_and_armed_again_only_by_typing_its_name(
    serve: Serve, visit: Visit, gateway: Gateway, drive: Drive, mini: RobotProfile, tmp_path: Path, wait_for: WaitFor
) -> None:
    robot = drive(mini, gateway.address, "rover-7")
    served = serve(tmp_path / "journal", sockets={"rover-7": robot.socket}, files_s=0.1)
    page = visit(served.url, PHONE, phone=True)
    card = page.get_by_label("robot rover-7", exact=True)
    card.locator('[data-state="armed"]').wait_for()
    card.get_by_text("live,").wait_for()
    stop = page.locator("#stop")
    assert stop.bounding_box()["y"] + stop.bounding_box()["height"] <= PHONE["height"]  # in reach of a thumb
    stop.tap()
    wait_for(lambda: robot.arming.now.stop_held)
    page.get_by_text("tripped: emergency stop, stop is pressed").wait_for()
    card.get_by_text(" old").wait_for()  # a robot that is stopped records nothing

    card.get_by_role("button", name="Release stop…").tap()
    page.locator("#dialog-input").fill("rover-8")
    assert page.locator("#dialog-yes").is_disabled()
    page.keyboard.press("Escape")
    assert robot.arming.now.stop_held
    card.get_by_role("button", name="Release stop…").tap()
    page.locator("#dialog-input").fill("rover-7")
    page.locator("#dialog-yes").tap()
    wait_for(lambda: not robot.arming.now.stop_held)
    assert robot.arming.now.state == "tripped"

    card.get_by_role("button", name="Arm…").tap()
    page.get_by_text("It will move by itself at once").wait_for()
    stop.tap(trial=True)  # it can be hit while the question is asked
    page.keyboard.press("Enter")
    assert robot.arming.now.state == "tripped"
    page.locator("#dialog-input").fill("rover-7")
    page.keyboard.press("Enter")
    wait_for(lambda: robot.arming.now.state == "armed")
    card.get_by_text("live,").wait_for()
    card.get_by_role("button", name="Disarm").tap()
    wait_for(lambda: robot.arming.now.state == "disarmed")


def test_a_stop_that_does_not_get_through_says_so(
    serve: Serve, visit: Visit, gateway: Gateway, drive: Drive, mini: RobotProfile
) -> None:
    robot = drive(mini, gateway.address, "rover-7")
    served = serve(sockets={"rover-7": robot.socket, "gone": robot.socket.with_name("gone.sock")}, files_s=0.1)
    page = visit(served.url)
    page.get_by_text("its program does not answer").wait_for()
    page.locator("#stop").focus()
    page.keyboard.press("Enter")
    page.get_by_text("STOP DID NOT GET THROUGH to gone: use its own stop").wait_for()
    assert robot.arming.now.stop_held  # the other one was reached all the same


def test_a_robot_elsewhere_has_no_buttons_but_a_way(
    serve: Serve, visit: Visit, journal: Journal, make_step: MakeStep, tmp_path: Path
) -> None:
    page = visit(serve(tmp_path / "journal").url)
    append(journal, make_step, 0, robot="rover-9")
    page.get_by_text("How to stop it").click()
    page.get_by_text("policyloop robot stop --name rover-9").wait_for()
    assert page.locator(".robot button").count() == 0
    assert page.locator("#stop").is_hidden()


def test_robots_that_were_not_heard_for_long_stand_behind_the_others(
    serve: Serve, visit: Visit, journal: Journal, make_step: MakeStep, tmp_path: Path
) -> None:
    append(journal, make_step, 0, robot="a-long-gone", wall_clock_s=time.time() - 600)
    append(journal, make_step, 1, robot="here")
    page = visit(serve(tmp_path / "journal").url)
    page.get_by_role("heading", name="a-long-gone").wait_for()
    assert page.locator(".robot h2").all_inner_texts() == ["here", "a-long-gone"]


def test_who_knows_the_token_gets_in_and_it_stays_out_of_addresses(
    serve: Serve, visit: Visit, journal: Journal, tmp_path: Path
) -> None:
    served = serve(tmp_path / "journal", token=TOKEN)
    page = visit(served.url)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url + str(request.headers.get("referer", ""))))
    assert page.url.endswith("/login")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("frames/s").wait_for()
    assert page.url == served.url
    assert page.evaluate("document.cookie") == ""  # no script can read it
    assert not any(TOKEN in address for address in addresses)


def test_learner_and_ledger_are_drawn(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    write_progress(tmp_path, updates=3)
    page = visit(serve(runs=tmp_path).url)
    page.get_by_role("img", name="return: ").wait_for()
    assert page.locator(".chart figcaption span").all_inner_texts()[:3] == ["return", "policy loss", "value loss"]
    row = page.get_by_role("row", name="too old for this policy")
    assert row.inner_text().split("\t")[1:] == ["60", "0.7 %"]


def test_a_version_is_activated_and_left_again_by_typing_its_number(
    serve: Serve, visit: Visit, store: Store, wait_for: WaitFor
) -> None:
    page = visit(serve(store=store.directory, files_s=0.1).url)
    old = page.get_by_label("version 11", exact=True)
    old.get_by_text("signed by ada").wait_for()
    page.get_by_label("version 13", exact=True).get_by_text("not signed").wait_for()
    old.get_by_role("button", name="Activate…").click()
    page.get_by_text("it must prove itself").wait_for()
    page.get_by_role("button", name="Cancel").click()
    old.get_by_role("button", name="Activate…").click()
    page.locator("#dialog-input").fill("11")
    page.get_by_role("button", name="Activate", exact=True).click()
    wait_for(lambda: store.current == store.find(11))
    old.get_by_role("button", name="Current").wait_for()
    page.get_by_role("button", name="Go back to version 12…").click()
    page.locator("#dialog-input").fill("12")
    page.get_by_role("button", name="Go back", exact=True).click()
    wait_for(lambda: store.current == store.find(12))
    old.get_by_text("rolled back from the dashboard").wait_for()
    assert store.about(store.find(11)).state == "bad"
    assert old.get_by_role("button", name="Activate…").is_disabled()


def test_a_dashboard_that_is_gone_leaves_nothing_that_looks_fresh(
    serve: Serve, visit: Visit, journal: Journal, make_step: MakeStep, tmp_path: Path
) -> None:
    served = serve(tmp_path / "journal")
    page = visit(served.url)
    append(journal, make_step, 0)
    page.locator('body[data-contact="live"]').wait_for()
    assert not is_grey(page, "main")
    served.close()
    page.get_by_text("what you see is old").wait_for()
    assert is_grey(page, "main")


def test_everything_fits_a_phone_and_can_be_reached_by_keyboard(
    serve: Serve, visit: Visit, gateway: Gateway, drive: Drive, mini: RobotProfile, store: Store, tmp_path: Path
) -> None:
    robot = drive(mini, gateway.address, "rover-7")
    write_progress(tmp_path, updates=3)
    served = serve(tmp_path / "journal", tmp_path, store.directory, {"rover-7": robot.socket})
    page = visit(served.url, PHONE, phone=True)
    page.get_by_text("driven by a script").wait_for()
    page.get_by_label("version 13", exact=True).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "stop"  # the first thing that a keyboard reaches
    small = "[...document.querySelectorAll('button')].filter(b => b.offsetHeight && b.offsetHeight < 44).length"
    assert page.evaluate(small) == 0  # CSS pixels: what a thumb hits
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, canvas, svg')].filter(e => e.checkVisibility() && "
        "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


def write_progress(folder: Path, updates: int) -> None:
    """Write numbers as a learner does."""
    with (folder / "progress.jsonl").open("w") as file:
        for update in range(1, updates + 1):
            done = 1 - 0.9**update
            wave = (update * 7919 % 101 / 101 - 0.5) * 0.3
            numbers = {
                "episode_score": -40 + 320 * done + 60 * wave,
                "policy_loss": -0.02 * (1 - done) + 0.01 * wave,
                "value_loss": 9 * (1 - done) + 1.2 + wave,
                "entropy": 1.6 - 1.1 * done,
                "approx_kl": 0.011 + 0.008 * wave,
                "collision_rate": max(0.0, 0.6 * (1 - done) + 0.1 * wave),
            }
            ledger = {"trained": 2048 * update, "demonstration": 3000, "too-old": 20 * update, "gap": update}
            line = {
                "step": 2048 * update,
                "wall_clock_s": time.time(),
                **numbers,
                "update_s": 11.4,
                "steps_per_s": 61.0,
            }
            file.write(json.dumps({**line, "update": update, "version": 13, "rollout": 2048, "ledger": ledger}) + "\n")
