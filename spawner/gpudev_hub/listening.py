"""Runs a service that listens until a signal ends it, or it ends by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from .service.service import Service


async def listen_until_told(service: Service, listeners: Sequence[tuple[HTTPServer, str, int]]) -> None:
    """Start the service, listen on each (server, address, port), and return after SIGTERM or SIGINT.

    Raises what ended it otherwise.
    """
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    await service.start()
    try:
        for server, address, port in listeners:
            server.add_sockets(bind_sockets(port, address))
        ended = asyncio.create_task(service.closed())
        asked = asyncio.create_task(ending.wait())
        done, _ = await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if ended in done:
            await ended
        ended.cancel()
    finally:
        for server, _, _ in listeners:
            server.stop()
        await service.stop()
