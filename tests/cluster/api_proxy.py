"""A proxy in front of the API server that cuts or refuses watches, or answers from an old cache."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import aiohttp
from aiohttp import web

from harness.credentials import SERVER

EXPIRED: Final = {
    "type": "ERROR",
    "object": {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": "Expired",
        "code": 410,
        "message": "too old resource version",
    },
}
"""https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses"""


TOO_MANY: Final = {
    "apiVersion": "v1",
    "kind": "Status",
    "status": "Failure",
    "reason": "TooManyRequests",
    "code": 429,
    "message": "Too many requests, please try again later.",
}


class ApiProxy:
    """A proxy for clients with a ``kubeconfig`` file. It passes requests on until a test sets a fault."""

    def __init__(self, authority: Path, folder: Path) -> None:
        """``authority``: the file with the API server's authority. ``folder``: for the kubeconfig files."""
        self._authority = authority
        self._folder = folder
        self._port = 0
        self._watches: set[asyncio.Transport] = set()
        self._expired = 0
        self._refusing = False
        self.refused: Counter[str] = Counter()
        """Watches that were answered 429, by path."""
        self._listed: dict[str, bytes] = {}
        self._loop = asyncio.new_event_loop()
        self._current = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, direct: Path) -> Path:
        """Return a copy of a kubeconfig file, as private as the original, with the address of this proxy."""
        content = json.loads(direct.read_text())
        content["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        path = self._folder / direct.name
        path.touch(0o600)
        path.write_text(json.dumps(content))
        return path

    # Faults

    def cut(self, expired: int = 0) -> int:
        """Cut all watches; return how many. The next ``expired`` watches cannot resume where these ended."""
        return asyncio.run_coroutine_threadsafe(self._cut(expired), self._loop).result(30)

    @property
    def watching(self) -> int:
        """The number of open watches."""
        return len(self._watches)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Answer new watches with 429, too many requests."""
        self._refusing = True
        try:
            yield
        finally:
            self._refusing = False

    @contextmanager
    def behind(self) -> Iterator[None]:
        """Freeze the cache: the API allows an old answer to a list with resource version 0.

        Meanwhile watches deliver nothing; then they deliver everything. A list without a version is current.
        https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list
        """
        self._loop.call_soon_threadsafe(self._current.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._current.set)

    # In the proxy's thread

    async def _open(self) -> None:
        self._current.set()
        tls = ssl.create_default_context(cafile=str(self._authority))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _cut(self, expired: int) -> int:
        cut = list(self._watches)
        self._watches.clear()
        self._expired = expired
        for transport in cut:
            transport.abort()
        return len(cut)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = request.path_qs
        watching = request.query.get("watch", "").lower() in ("true", "1")
        cached = request.query.get("resourceVersion") == "0"
        if cached and not self._current.is_set() and asked in self._listed:
            return web.Response(body=self._listed[asked], content_type="application/json")
        if watching and self._expired:
            self._expired -= 1
            return web.json_response(EXPIRED)
        if watching and self._refusing:
            self.refused[request.path] += 1
            return web.json_response(TOO_MANY, status=429)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "accept-encoding", "content-length", "connection")
        }
        try:
            async with self._session.request(
                request.method, SERVER + asked, headers=headers, data=await request.read()
            ) as answer:
                if watching and answer.status == 200:
                    return await self._stream(request, answer)
                body = await answer.read()
                if cached and answer.status == 200:
                    self._listed[asked] = body
                return web.Response(status=answer.status, body=body, content_type=answer.content_type)
        except aiohttp.ClientError:
            return web.Response(status=502)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        out = web.StreamResponse(headers={"Content-Type": answer.content_type})
        await out.prepare(request)
        # Keep the transport: after the client has disconnected, the request has none.
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._watches.add(transport)
        try:
            async for chunk in answer.content.iter_any():
                await self._current.wait()
                await out.write(chunk)
        except (ConnectionError, aiohttp.ClientError):
            pass  # the client or the API server has closed it
        finally:
            self._watches.discard(transport)
        return out
