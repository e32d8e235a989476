"""The page's server: pages, one WebSocket, the buttons, `/metrics`. Every request passes the door first."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from importlib import resources
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs

import anyio
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from policyloop.dashboard.access import COOKIE, SESSION_S, Access, is_loopback
from policyloop.dashboard.door import Door
from policyloop.dashboard.live import Live, TooManyPages
from policyloop.dashboard.prometheus import CONTENT_TYPE, exposition
from policyloop.errors import ConfigError, ConnectionFailed, PolicyloopError, SafetyRefusal, UsageError
from policyloop.robot.control import Verb

__all__ = ["DashboardServer"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MAX_BODY = 2048
_MAX_CONNECTIONS = 128
_SEND_BUFFER_BYTES = 128 << 10
_GRACE_S = 2
_STATUS = {UsageError: 400, SafetyRefusal: 409, ConnectionFailed: 502}


class _RobotOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A button of a robot was pressed; `confirm` is what a person typed."""

    name: str
    verb: Verb
    confirm: str = ""


class _StoreOrder(msgspec.Struct, forbid_unknown_fields=True):
    """A button of the store was pressed: activate `version`, or go back from it."""

    verb: str
    version: str
    confirm: str = ""


class DashboardServer:
    """Serves the page.

    Args:
        live: What it shows.
        access: Who may see it.
        host, port: Where; port 0 = any free one.
        certificate, private_key: Files, to serve with TLS.

    Raises:
        ConnectionFailed: Nobody can listen there.
        ConfigError: The certificate cannot be used.
    """

    def __init__(
        self,
        live: Live,
        access: Access,
        host: str,
        port: int,
        certificate: Path | None = None,
        private_key: Path | None = None,
    ) -> None:
        self._live, self._access = live, access
        self._files = _page_files()
        if certificate is not None:
            _check_certificate(certificate, private_key)
        self._socket = _listen(host, port)
        routes = [
            Route("/", self._file),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/robot", self._order_robot, methods=["POST"]),
            Route("/store", self._order_store, methods=["POST"]),
            Route("/metrics", self._metrics),
            Route("/{name}", self._file),
            WebSocketRoute("/live", self._tell),
        ]
        app = Starlette(routes=routes, exception_handlers={PolicyloopError: _explain})
        self._server = uvicorn.Server(
            uvicorn.Config(
                Door(app, access),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=_GRACE_S,
                ws="websockets-sansio",
                ws_max_size=16 << 10,
                ws_max_queue=4,
                ws_per_message_deflate=False,
                ssl_certfile=certificate,
                ssl_keyfile=private_key,
            )
        )

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self._socket.getsockname()[:2]
        return f"{'https' if self._access.secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"

    async def run(self) -> None:
        """Serve until a signal asks to end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._live.follow)
            tasks.start_soon(self._live.look_after_files)
            for name in self._live.controls.names:
                tasks.start_soon(self._live.look_after, name)
            await self._server.serve(sockets=[self._socket])
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Let `run` end, from any thread."""
        self._server.should_exit = True

    def close(self) -> None:
        """Release the port."""
        self._socket.close()

    # -- pages ----------------------------------------------------------------------------------

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in self._files:
            raise HTTPException(404)
        return Response(self._files[name], media_type=_TYPES[Path(name).suffix])

    async def _login(self, request: Request) -> Response:
        page = Response(self._files["login.html"], media_type="text/html")
        if request.method == "GET":
            return page
        form = parse_qs((await _body(request)).decode("utf-8", "replace"))
        session = self._access.session("".join(form.get("token", [])))
        if not session:
            log.warning("a wrong token from %s", _peer(request))
            page.status_code = 403
            return page
        log.info("a login from %s", _peer(request))
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, session, max_age=SESSION_S, httponly=True, samesite="strict", secure=self._access.secure
        )
        return answer

    async def _metrics(self, request: Request) -> Response:
        live = self._live
        return Response(exposition(live.tail, live.robots, live.learner), media_type=CONTENT_TYPE)

    async def _tell(self, line: WebSocket) -> None:
        try:
            page = self._live.open()
        except TooManyPages:
            await line.close(1013)
            return
        try:
            await line.accept()
            async with anyio.create_task_group() as tasks:

                async def listen() -> None:
                    try:
                        while True:
                            page.hear(await line.receive_text())
                    except (WebSocketDisconnect, KeyError):  # it is gone, or sends bytes
                        tasks.cancel_scope.cancel()

                async def tell() -> None:
                    try:
                        await self._live.tell(page, line)
                    except (TimeoutError, WebSocketDisconnect):
                        tasks.cancel_scope.cancel()

                tasks.start_soon(listen)
                tasks.start_soon(tell)
        finally:
            self._live.close(page)

    # -- buttons --------------------------------------------------------------------------------

    async def _order_robot(self, request: Request) -> Response:
        order = await _order(request, _RobotOrder)
        if order.verb in ("arm", "release"):
            if request.client is None or not is_loopback(request.client.host):
                raise SafetyRefusal(
                    "a robot is armed, or its stop released, on its own machine only",
                    "open this page through ssh -L, or type there: policyloop robot arm",
                )
            _check_typed(order.confirm, order.name)
        status = await asyncio.to_thread(self._live.controls.ask, order.name, order.verb)
        if order.verb != "status":
            log.warning("%s: robot %r %s", _peer(request), order.name, order.verb)
        return JSONResponse(msgspec.to_builtins(status))

    async def _order_store(self, request: Request) -> Response:
        order, store = await _order(request, _StoreOrder), self._live.store
        if store is None or order.verb not in ("activate", "rollback"):
            raise UsageError(f"nothing here can {order.verb[:20]}", "start the dashboard with --store")
        target = order.version if order.verb == "activate" else store.shown.previous
        _check_typed(order.confirm, str(int(target.partition("-")[0] or 0)))
        change = store.activate if order.verb == "activate" else store.rollback
        await asyncio.to_thread(change, order.version)
        log.warning("%s: store, %s %s", _peer(request), order.verb, order.version)
        await asyncio.to_thread(store.read)
        return JSONResponse({"current": store.shown.current})


def _page_files() -> dict[str, bytes]:
    folder = resources.files("policyloop.dashboard") / "assets"
    return {file.name: file.read_bytes() for file in folder.iterdir() if Path(file.name).suffix in _TYPES}


def _check_certificate(certificate: Path, private_key: Path | None) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, private_key)
    except OSError as error:
        raise ConfigError(
            f"TLS cannot use {certificate}: {error}", "give a certificate and its key, both PEM"
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConnectionFailed(f"cannot listen at {host}:{port}: {error}", "choose another --port") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # old frames must not pile up there
    return listener


async def _body(request: Request) -> bytes:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > _MAX_BODY:
            raise HTTPException(413)
    return data


async def _order(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await _body(request), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HTTPException(400) from None


def _check_typed(typed: str, expected: str) -> None:
    if typed.strip() != expected:
        raise UsageError("that was not confirmed", f"type {expected}")


def _peer(request: Request) -> str:
    return request.client.host if request.client else "somebody"


def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, PolicyloopError)
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse({"error": error.message, "remedy": error.remedy}, status)
