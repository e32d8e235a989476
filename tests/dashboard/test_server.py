"""The server over real sockets: what gets through the door, and what the buttons do."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from policyloop.bundle.build import Bundle
from policyloop.bundle.store import Store
from policyloop.core.profile import RobotProfile
from policyloop.dashboard import server as server_module
from policyloop.errors import ConnectionFailed
from policyloop.robot.control import ControlSocket
from policyloop.safety.arming import ArmingLimits, ArmingSwitch

Serve = Callable[..., Any]
TOKEN = "secret-" * 7
OTHERS = [{"Origin": ""}, {"Origin": "null"}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}]


@pytest.fixture
def robot(mini: RobotProfile) -> Iterator[tuple[dict[str, Path], ArmingSwitch]]:
    """A robot's control socket, healthy enough to be armed."""
    with tempfile.TemporaryDirectory() as folder:
        arming = ArmingSwitch(ArmingLimits.of(mini))
        for _ in range(20):
            arming.tick(healthy=True, by_human=False)
        control = ControlSocket(Path(folder) / "r.sock", arming, lambda: 1)
        yield {"rover": Path(folder) / "r.sock"}, arming
        control.close()


def order(served: Any, path: str, headers: dict[str, str] | None = None, **content: str) -> tuple[int, Any]:
    answer = served.request("POST", path, json.dumps(content), headers)
    return answer.status, json.loads(answer.text) if answer.text.startswith("{") else answer.text


def login(served: Any) -> dict[str, str]:
    answer = served.request("POST", "/login", f"token={quote_plus(TOKEN)}")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


# The door


def test_every_answer_keeps_the_browser_from_harm(serve: Serve) -> None:
    served = serve()
    for path in ("/", "/app.js", "/metrics", "/nothing", "/login"):
        headers = served.request("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_a_request_under_another_name_is_turned_away(serve: Serve) -> None:
    assert serve().request("GET", "/", headers={"Host": "evil.example"}).status == 421


def test_files_are_those_of_the_page_and_no_others(serve: Serve) -> None:
    served = serve()
    assert served.request("GET", "/robot.js").headers["content-type"].startswith("text/javascript")
    for path in ("/server.py", "/../server.py", "/..%2fserver.py", "/page/app.js", "/etc/passwd"):
        assert served.request("GET", path).status == 404


def test_the_page_asks_nobody_else_for_anything() -> None:
    for name, content in server_module._page_files().items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, name
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text, name


def test_without_a_session_nothing_is_shown(serve: Serve, robot: Any, tmp_path: Path) -> None:
    served = serve(token=TOKEN, sockets=robot[0], store=tmp_path / "store")
    answer = served.request("GET", "/")
    assert (answer.status, answer.headers["location"]) == (303, "/login")
    for path in ("/app.js", "/metrics", "/nothing"):
        assert served.request("GET", path).status == 401
    for path in ("/robot", "/store"):
        assert order(served, path, name="rover", verb="stop")[0] == 401
    with pytest.raises(InvalidStatus):
        connect(served.url.replace("http", "ws") + "live", origin=served.url.rstrip("/"))
    assert not robot[1].now.stop_held


def test_the_token_opens_a_session_and_is_in_no_log_and_no_cookie(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served = serve(token=TOKEN)
    for wrong in ("", "token=", "token=wrong", f"token={quote_plus(TOKEN[:-1])}", "x" * 2000):
        assert served.request("POST", "/login", wrong).status == 403
    assert served.request("POST", "/login", "x" * 3000).status == 413
    cookie = served.request("POST", "/login", f"token={quote_plus(TOKEN)}").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    session = login(served)
    assert served.request("GET", "/", headers=session).status == 200
    assert TOKEN not in cookie + caplog.text
    assert session["Cookie"].partition("=")[2] not in caplog.text


def test_a_monitor_shows_the_token_itself_and_only_for_its_numbers(serve: Serve) -> None:
    served = serve(token=TOKEN)
    assert served.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
    assert served.request("GET", "/metrics", headers={"Authorization": "Bearer wrong"}).status == 401
    assert served.request("GET", "/", headers={"Authorization": f"Bearer {TOKEN}"}).status == 303


@pytest.mark.parametrize("headers", OTHERS)
def test_what_comes_from_another_page_does_nothing(serve: Serve, robot: Any, headers: dict[str, str]) -> None:
    served = serve(sockets=robot[0], token=TOKEN)
    status, _ = order(served, "/robot", {**login(served), **headers}, name="rover", verb="stop")
    assert status in (403, 421)
    assert served.request("POST", "/login", f"token={quote_plus(TOKEN)}", headers).status in (403, 421)
    assert not robot[1].now.stop_held


def test_another_pages_socket_is_refused(serve: Serve) -> None:
    served = serve()
    address = served.url.replace("http", "ws") + "live"
    for origin in (None, "http://evil.example"):
        with pytest.raises(InvalidStatus) as refused:
            connect(address, origin=origin)  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403


def test_only_so_many_pages_are_open(serve: Serve, wait_for: Callable[..., None]) -> None:
    served = serve(max_pages=2)
    address, origin = served.url.replace("http", "ws") + "live", served.url.rstrip("/")
    with connect(address, origin=origin) as first, connect(address, origin=origin):
        with pytest.raises((InvalidStatus, ConnectionClosed)), connect(address, origin=origin) as third:
            third.recv(timeout=10)
        first.close()

        def opens() -> bool:
            try:
                with connect(address, origin=origin) as another:
                    return bool(another.recv(timeout=10))
            except (InvalidStatus, ConnectionClosed):
                return False

        wait_for(opens)


def test_a_port_in_use_is_said(serve: Serve) -> None:
    port = int(serve().netloc.rpartition(":")[2])
    with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}"):
        server_module._listen("127.0.0.1", port)


# The buttons


def test_stop_needs_no_confirmation(serve: Serve, robot: Any) -> None:
    served = serve(sockets=robot[0])
    status, answer = order(served, "/robot", name="rover", verb="stop")
    assert (status, answer["state"], answer["stop_held"]) == (200, "tripped", True)
    assert robot[1].now.stop_held


def test_arming_and_releasing_must_be_typed(serve: Serve, robot: Any) -> None:
    served, arming = serve(sockets=robot[0]), robot[1]
    for confirm in ("", "rove", "ROVER"):
        assert order(served, "/robot", name="rover", verb="arm", confirm=confirm)[0] == 400
        assert arming.now.state == "disarmed"
    assert order(served, "/robot", name="rover", verb="arm", confirm="rover")[1]["state"] == "armed"
    order(served, "/robot", name="rover", verb="stop")
    assert order(served, "/robot", name="rover", verb="release")[0] == 400
    assert arming.now.stop_held
    status, answer = order(served, "/robot", name="rover", verb="arm", confirm="rover")
    assert (status, "the emergency stop is pressed" in answer["error"]) == (409, True)
    assert order(served, "/robot", name="rover", verb="release", confirm="rover")[1]["state"] == "tripped"


def test_nobody_arms_or_releases_from_another_machine(
    serve: Serve, robot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "is_loopback", lambda host: False)
    served, arming = serve(sockets=robot[0]), robot[1]
    for verb in ("arm", "release"):
        status, answer = order(served, "/robot", name="rover", verb=verb, confirm="rover")
        assert (status, "on its own machine only" in answer["error"]) == (409, True)
    assert arming.now.state == "disarmed"
    assert order(served, "/robot", name="rover", verb="stop")[0] == 200, "anybody who is logged in may stop it"
    assert arming.now.stop_held


def test_a_robot_that_does_not_answer_is_no_success(serve: Serve, tmp_path: Path) -> None:
    status, answer = order(serve(sockets={"r": tmp_path / "no.sock"}), "/robot", name="r", verb="stop")
    assert (status, "no robot answers" in answer["error"]) == (502, True)


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"name": "rover", "verb": "fly"}', '{"name": 1, "verb": "stop"}', "x" * 1000]
)
def test_what_is_no_order_does_nothing(serve: Serve, robot: Any, body: str) -> None:
    served = serve(sockets=robot[0])
    assert served.request("POST", "/robot", body).status == 400
    assert served.request("GET", "/robot").status == 404
    assert not robot[1].now.stop_held


def test_versions_are_activated_and_left_by_their_number(serve: Serve, exported: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for version in (1, 2):
        manifest = msgspec.structs.replace(exported.manifest, version=version)
        store.activate(store.add(msgspec.structs.replace(exported, manifest=manifest)))
    first, second = (path.name for path in store.versions())
    served = serve(store=store.directory)
    assert order(served, "/store", verb="activate", version=first)[0] == 400, "nobody confirmed it"
    assert order(served, "/store", verb="activate", version=first, confirm="2")[0] == 400
    assert store.current == store.find(2)
    assert order(served, "/store", verb="activate", version=first, confirm="1") == (200, {"current": first})
    assert store.current == store.find(1)
    assert order(served, "/store", verb="rollback", version=second, confirm="2")[0] == 400, "another one is current"
    assert order(served, "/store", verb="rollback", version=first, confirm="2") == (200, {"current": second})
    status, answer = order(served, "/store", verb="activate", version=first, confirm="1")
    assert (status, "is marked bad" in answer["error"]) == (409, True)
    assert order(served, "/store", verb="prune", version=first, confirm="1")[0] == 400


def test_without_a_store_there_is_nothing_to_activate(serve: Serve) -> None:
    assert order(serve(), "/store", verb="activate", version="1", confirm="1")[0] == 400
