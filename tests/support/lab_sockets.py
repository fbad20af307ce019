"""Opens terminals of JupyterLab like a browser that is logged in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect


@asynccontextmanager
async def web_socket(request: HTTPRequest) -> AsyncIterator[WebSocketClientConnection]:
    """Open a connection; it is closed after the block."""
    socket = await websocket_connect(request)
    assert socket.protocol is not None
    assert socket.protocol.stream is not None
    stream = socket.protocol.stream
    try:
        yield socket
    finally:
        # This sends the last message; the server's answer may come when the event loop is gone.
        socket.close()
        stream.close()


@asynccontextmanager
async def terminal(browser: httpx.Client, server: str) -> AsyncIterator[WebSocketClientConnection]:
    """Open a terminal of JupyterLab in this browser; it is closed after the block."""
    made = await asyncio.to_thread(browser.post, f"{server}/api/terminals", headers=xsrf(browser, server))
    made.raise_for_status()
    path = urlsplit(server).path
    cookies = "; ".join(
        f"{cookie.name}={cookie.value}"
        for cookie in browser.cookies.jar
        if f"{path}/".startswith(cookie.path)
    )
    address = f"{browser.base_url}".replace("http", "ws", 1).rstrip("/") + f"{path}/terminals/websocket/"
    headers = {"Cookie": cookies, "Origin": str(browser.base_url).rstrip("/")}
    async with web_socket(HTTPRequest(address + made.json()["name"], headers=headers)) as socket:
        yield socket


def xsrf(browser: httpx.Client, server: str) -> dict[str, str]:
    path = urlsplit(server).path
    found = [c.value for c in browser.cookies.jar if c.name == "_xsrf" and c.path.startswith(path)]
    return {"X-XSRFToken": found[0] or ""}
