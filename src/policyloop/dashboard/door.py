"""What every request passes before anything looks at it: is it for this machine, from this page, of somebody known?"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from policyloop.dashboard.access import COOKIE, Access

__all__ = ["Door"]

_OPEN = ("/login", "/style.css", "/icon.svg")
"""What a login needs."""
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Door:
    """Turns requests away, and gives every answer the headers that keep a browser from harm.

    Args:
        app: Answers what may pass.
        access: Judges.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, with_headers)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if not self._access.host_fits(headers.get("host", "")):
            return PlainTextResponse("This page is not served under that name: use the address.", 421)
        if changes and not self._access.is_own_page(headers):
            return PlainTextResponse("That did not come from this page.", 403)
        bearer = headers.get("authorization", "").removeprefix("Bearer ") if path == "/metrics" else ""
        if path in _OPEN or self._access.is_open_to(_cookie(headers), bearer):
            return None
        if path == "/" and scope["type"] == "http":
            return RedirectResponse("/login", 303)
        return PlainTextResponse("Log in first.", 401)


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
