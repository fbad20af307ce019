"""Starts, watches, restarts and ends a part of a hub, which is a process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path

from .server import isolation, processes
from .server.logs import Log, tail

log = logging.getLogger(__name__)

FIRST_DELAY = 0.2
LONGEST_DELAY = 10.0
SETTLED = 30.0
"""A part that ran for this many seconds is restarted without a longer delay."""
REFUSED = 3
"""Exit code of a part that refuses to start; its last output says why."""
PATIENCE = 10.0
"""Seconds in which a part must end; then it is killed."""


class Part:
    """The proxy, hub, service or bastion. Its process dies with the supervisor."""

    def __init__(
        self,
        name: str,
        argv: list[str],
        env: Mapping[str, str],
        logs: Path,
        again: Callable[[], Coroutine[None, None, None]] | None = None,
    ) -> None:
        """``again`` is called after each restart of the part."""
        self.name = name
        self.argv = argv
        self.deaths = 0
        self.refused = False
        """Whether the last exit code was ``REFUSED``."""
        self._env = env
        self._log_path = logs / f"{name}.log"
        self._log = Log(self._log_path)
        self._again = again
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the current process; ``None`` if none runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=self.name)

    def last_words(self) -> str:
        """Return the last lines of the part's log."""
        return tail(self._log_path, 15)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY
        while not self._ending.is_set():
            begun = loop.time()
            code = await self._once()
            if self._ending.is_set():
                return
            self.deaths += 1
            self.refused = code == REFUSED
            if loop.time() - begun > SETTLED:
                delay = FIRST_DELAY
            log.warning("%s ended with exit code %s; restarting it in %.1f s", self.name, code, delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def _once(self) -> int | str:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.argv,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # The supervisor handles Ctrl-C, and ends the parts in the right order.
                start_new_session=True,
                preexec_fn=isolation.die_with_parent,
            )
        except OSError as error:
            self._log.write(f"{self.argv[0]} cannot be started: {error}\n".encode())
            return str(error)
        assert self._process.stdout is not None
        if self.deaths and self._again is not None:
            self._telling = asyncio.create_task(self._again())
        while data := await self._process.stdout.read(65536):
            self._log.write(data)
        return await self._process.wait()

    async def end(self) -> None:
        """End the part, and do not restart it."""
        self._ending.set()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            except TimeoutError:
                log.warning("%s did not end within %.0f s and is killed", self.name, PATIENCE)
                process.kill()
                await process.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def reap_strays(known: set[int | None]) -> None:
    """Reap launchers that became children of this process when their own parent ended."""
    for pid in processes.everyone():
        fields = None if pid in known else processes.stat(pid)
        if fields is not None and fields[0] == "Z" and int(fields[1]) == os.getpid():
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
