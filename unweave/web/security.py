"""Which requests are answered: those that a browser on this machine sends to this server's own pages.

A page of another site can make a browser send requests to this machine, and a name that its owner points at 127.0.0.1
makes them look local (DNS rebinding). So the ``Host`` must be this machine's own name with the port that is served,
and an ``Origin``, where there is one, must be the same.
"""

import json
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = ("127.0.0.1", "localhost", "[::1]")
"""What this machine calls itself."""
LARGEST_BODY = 2_000_000
"""Bytes that a request may bring."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Plotly writes style elements
        "img-src 'self' data: blob:",  # Plotly's images of a chart
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class LocalOnly:
    """ASGI middleware: refuses requests that are not this machine's own, and marks every answer with ``HEADERS``.

    An answer that does not say how long it holds is asked for again each time, so that no page is of an older version.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            marked = _marking(send)
            if problem := _problem(scope):
                await _refuse(problem, marked)
            else:
                await self.app(scope, _limited(receive), marked)


def _problem(scope: Scope) -> str:
    """Why a request is refused, or nothing."""
    asked = _headers(scope)
    known = [f"{name}:{scope['server'][1]}" for name in NAMES]
    host, origin = asked.get("host", ""), asked.get("origin")
    if host not in known:
        return f"this server answers at {' and '.join(known)} only, not at {host!r}; a tunnel must use the same port"
    if origin is not None and origin != f"http://{host}":
        return f"this server answers its own pages only, not those of {origin!r}"
    return ""


def _headers(scope: Scope) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def _refuse(problem: str, send: Send) -> None:
    body = json.dumps({"error": problem}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _marking(send: Send) -> Send:
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = message["headers"]
            lasts = any(name.lower() == b"cache-control" for name, _ in own)
            message = {**message, "headers": [*own, *added, *(() if lasts else ((b"cache-control", b"no-cache"),))]}
        await send(message)

    return marked


def _limited(receive: Receive) -> Receive:
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > LARGEST_BODY:
            raise HTTPException(413, f"a request brings at most {LARGEST_BODY:,} bytes; send less text")
        return message

    return limited
