"""What the local page does not answer: requests that other sites send, and those that are too large.

A page that any site may talk to is one that any site may read. A browser says in ``Origin`` which site sent a request,
and in ``Host`` by which name it found us: a stranger's name may lead to this machine (DNS rebinding), a number or
this machine's own name is nobody else's.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

FORM_BYTES = 2**20
"""What a request may hold beside the photograph."""


class Guard:
    """ASGI middleware: 403 for a foreign ``Host`` or ``Origin``, 413 for a request with too long a body.

    Args:
        app: answers everything else.
        host: address that is listened on.
        max_bytes: of a photograph.
    """

    def __init__(self, app: App, host: str, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes + FORM_BYTES
        own = socket.gethostname().lower()
        self.names = {host.lower(), "localhost", own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or pass on; see the ASGI specification."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        is_foreign = not self._is_own(host) or (origin is not None and urlsplit(origin).netloc.lower() != host.lower())
        if is_foreign:
            await _refuse(scope, send, 403, "This page answers only requests that it made itself.")
            return
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            await _refuse(scope, send, 413, "This request is too large.")
            return
        await self.app(scope, self._counted(receive), send)

    def _is_own(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    def _counted(self, receive: Receive) -> Receive:
        """The same, cut off after the largest body: its length need not be what was declared."""
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b"") or b"")
            return message if received <= self.max_bytes else {"type": "http.disconnect"}

        return receive_counted


async def _refuse(scope: Message, send: Send, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": words.encode()})
