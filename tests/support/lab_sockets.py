"""Terminals of JupyterLab, as a browser that is logged in opens them."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import httpx
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect


async def terminal(browser: httpx.Client, server: str) -> WebSocketClientConnection:
    """A terminal of JupyterLab, open in this browser."""
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
    return await websocket_connect(HTTPRequest(address + made.json()["name"], headers=headers))


def xsrf(browser: httpx.Client, server: str) -> dict[str, str]:
    path = urlsplit(server).path
    found = [c.value for c in browser.cookies.jar if c.name == "_xsrf" and c.path.startswith(path)]
    return {"X-XSRFToken": found[0] or ""}
