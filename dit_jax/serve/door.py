"""What every request passes: who asks, how much and how long, and what is counted.

In order: host and origin (`guard`), the token, then the route; it reads a body within the limits
and works until the deadline. A refusal is `{"error": one sentence}`.
"""

import asyncio
import base64
import contextlib
import hmac
import logging
import time
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dit_jax.serve.guard import HEADERS, Guard
from dit_jax.serve.schema import LARGEST_BODY

OPEN_TO_ALL = ("/healthz", "/readyz")  # what a container's keeper asks without a token


class Refused(Exception):
    """A request that is not answered: its status, one sentence, and headers."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None):
        super().__init__(sentence)
        self.status, self.headers = status, headers

    def response(self) -> JSONResponse:
        return JSONResponse({"error": str(self)}, self.status, self.headers)


class Metrics:
    """What GET /metrics says."""

    def __init__(self):
        self.registry = CollectorRegistry()
        about = dict(registry=self.registry)
        self.seconds = Histogram(
            "dit_jax_request_seconds", "From headers to answer", ("route", "status"), **about
        )
        self.rows = Histogram(
            "dit_jax_batch_rows", "Masks computed together", buckets=(1, 2, 4, 8, 16, 32), **about
        )
        self.inside = Gauge("dit_jax_requests_inside", "Questions being answered", **about)
        self.refused = Counter("dit_jax_requests_refused", "Questions answered 429", **about)


class Door:
    """ASGI middleware around the application."""

    def __init__(
        self, app: ASGIApp, *, guard: Guard, token: str | None, deadline: float, metrics: Metrics
    ):
        self._app, self._guard, self._token = app, guard, token
        self._deadline, self._metrics = deadline, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, status = time.monotonic(), 0
        scope["end"] = start + self._deadline
        body = _Limited(scope, receive)

        async def protected(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                await body.skip()
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            await self._app(scope, body, protected)
        except Exception as error:
            if not isinstance(error, Refused):
                logging.getLogger("dit_jax.serve").exception("%(method)s %(path)s", scope)
                error = Refused(500, "the server failed at this; its terminal says why.")
            if not status:
                await error.response()(scope, receive, protected)
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.seconds.labels(route, status).observe(time.monotonic() - start)

    def _check(self, path: str, headers: Headers) -> None:
        reason = self._guard.refusal(headers)
        if reason is not None:
            raise Refused(403, reason)
        if self._token is None or path in OPEN_TO_ALL:
            return
        if not any(hmac.compare_digest(said, self._token.encode()) for said in _said(headers)):
            how = {"WWW-Authenticate": 'Basic realm="dit_jax: the token as password"'}
            raise Refused(401, "no token, or another one: Authorization: Bearer TOKEN.", how)


class _Limited:
    """A request's body, within the limit of bytes and the deadline."""

    def __init__(self, scope: Scope, receive: Receive):
        self._receive, self._end, self._size, self._more = receive, scope["end"], 0, True
        self._asks = Headers(scope=scope).get("expect") is not None  # before it sends the body

    async def __call__(self) -> Message:
        if not self._more:  # what comes now is that the client has gone
            return await self._receive()
        try:
            async with asyncio.timeout(self._end - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, "the request did not arrive in time.") from None
        self._size += len(message.get("body", b""))
        self._more = message.get("more_body", False)
        if message["type"] == "http.disconnect":
            raise Refused(499, "the client has gone.")
        if self._size > LARGEST_BODY:
            most = f"{LARGEST_BODY / 2**20:.3g} MB"
            raise Refused(413, f"more than {most} were sent; expected a smaller file.")
        return message

    async def skip(self) -> None:
        """Take what is still on its way, as much again as the limit: a connection that is closed
        before is reset, and who sends a picture never reads why it was refused."""
        most = self._size + LARGEST_BODY
        with contextlib.suppress(TimeoutError):  # answered now, whether or not it is read
            async with asyncio.timeout(self._end - time.monotonic()):
                while self._more and self._size < most and (self._size or not self._asks):
                    message = await self._receive()
                    self._size += len(message.get("body", b""))
                    self._more = message.get("more_body", False)


def _said(headers: Any) -> list[bytes]:
    """The token that a program sends, or the password that a browser asked for."""
    kind, _, value = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return [value.encode("latin-1")]  # as servers read headers: the bytes that were sent
    try:
        return [base64.b64decode(value, validate=True).partition(b":")[2]]
    except ValueError:
        return []
