"""Who is let in where the dashboard can be reached from other machines.

Nothing of the dashboard is served before the secret was given: no page, no picture, no stream. A
browser that gave it has a cookie until the dashboard is started again. A learner's browser is let
in by the code of a class that is open, and sees that class only.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.lessons.classroom import classrooms

SECRET = "CONTACT_SHEET_PASSWORD"
FIELD = "token"  # of the form and of an address
COOKIE = "contact_sheet"
CLASS = "class"  # of a learner's address
CLASS_COOKIE = "contact_sheet_class"
CLASS_HEADER = "X-Contact-Sheet-Class"  # tells the pages that they show a class and nothing else
LOOKING = ("GET", "HEAD")
MAX_BYTES = 4096  # of what the form sends
WRONG_SECONDS = 1.0  # between two wrong secrets, whoever tries them
PAGE = Path(__file__).with_name("door.html")
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
           "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
                                      "form-action 'self'; frame-ancestors 'none'"}


def secret() -> str:
    """What has to be given; RuntimeError where there is none."""
    if value := os.environ.get(SECRET):
        return value
    raise RuntimeError(f"{SECRET} is not set; start the dashboard with contact-sheet --host")


class Door:
    """Middleware that asks every request for the secret, or for the cookie of one who gave it."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self.app, self.secret = app, secret.encode()
        self.cookie = secrets.token_urlsafe(32).encode()
        self._wrong = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._admitted(HTTPConnection(scope)):
            await self.app(scope, receive, send)
        elif code := _joined(HTTPConnection(scope)):
            header = CLASS_HEADER.lower().encode(), code.encode()
            await self.app({**scope, "headers": [*scope["headers"], header]}, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            response = await self._ask(Request(scope, receive))
            await response(scope, receive, send)

    def _admitted(self, connection: HTTPConnection) -> bool:
        return secrets.compare_digest(connection.cookies.get(COOKIE, "").encode(), self.cookie)

    async def _ask(self, request: Request) -> Response:
        """The page that asks, or the way on for one who knows."""
        text = request.query_params.get(FIELD)
        if request.method == "POST":
            text = await self._sent(request)
        elif text is None and (code := request.query_params.get(CLASS)):
            return await self._let_into_class(code)
        if text is None:
            return _page(401)
        if not secrets.compare_digest(text.encode(errors="replace"), self.secret):
            async with self._wrong:  # one after the other, so that guessing is slow
                await asyncio.sleep(WRONG_SECONDS)
            return _page(403, "That is not the password of this dashboard.")
        rest = [(name, value) for name, value in request.query_params.multi_items()
                if name != FIELD]
        path = f"/{request.url.path.lstrip('/')}"  # '//name' would lead to another server
        response = RedirectResponse(f"{path}{'?' * bool(rest)}{urlencode(rest)}", 303, HEADERS)
        response.set_cookie(COOKIE, self.cookie.decode(), httponly=True, samesite="lax",
                            secure=request.url.scheme == "https")
        return response

    async def _let_into_class(self, code: str) -> Response:
        """The way to a class for who knows its code."""
        code = code.strip().upper()
        if not classrooms.is_open(code):
            async with self._wrong:
                await asyncio.sleep(WRONG_SECONDS)
            return _page(403, "No class of that code is open now.")
        response = RedirectResponse(f"/?{urlencode({CLASS: code})}", 303, HEADERS)
        response.set_cookie(CLASS_COOKIE, code, httponly=True, samesite="lax")
        return response

    async def _sent(self, request: Request) -> str:
        """What the form sent; '' where that is too much or no text."""
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > MAX_BYTES:
                return ""
        return parse_qs(data.decode(errors="replace")).get(FIELD, [""])[0]


def _joined(connection: HTTPConnection) -> str | None:
    """The open class that a learner's browser was let into, where it only looks and asks neither
    for another nor for all."""
    code = connection.cookies.get(CLASS_COOKIE, "")
    asked = connection.query_params.get(CLASS, code).strip().upper()
    looks = (connection.scope.get("method", "GET") in LOOKING
             and FIELD not in connection.query_params)
    return code if looks and asked == code and classrooms.is_open(code) else None


def _page(status: int, problem: str = "") -> HTMLResponse:
    return HTMLResponse(PAGE.read_text("utf-8").replace("{problem}", problem), status, HEADERS)
