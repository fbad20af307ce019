"""``make run``: hub, proxy, service and servers of this machine in the foreground, each restarted alone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

import httpx

from .cluster.pools import find_gpus
from .cluster.servers import LocalServers
from .hub.scopes import LOCAL_USER_SCOPES
from .localuser import ConfigUnusable, LocalUser
from .parts import Part, reap_strays
from .server import isolation, preflight
from .settings import CHECKOUT, LOOPBACK, PREFIX, Ports, Settings, SettingsError
from .state import StateInUse, StateUnusable, choose_ports, open_state, port_free

log = logging.getLogger(__name__)

USABLE_WITHIN = 90.0
"""Seconds from start to usable before giving up."""
PORT_PATIENCE = 3.0
"""Seconds that the proxy of a supervisor that was killed just now has to let go of the port."""


class Ended(IntEnum):
    """Exit codes of ``gpudev-hub``; stable."""

    WELL = 0
    BAD_SETTING = 10
    STATE_IN_USE = 11
    PORT_IN_USE = 12
    PROGRAM_MISSING = 13
    STATE_UNUSABLE = 14
    CONFIG_UNUSABLE = 15
    NOT_USABLE = 16


class CannotRun(Exception):
    """Nothing runs; the message says what to do."""

    def __init__(self, code: Ended, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(environment: Mapping[str, str]) -> int:
    """Run until told to end; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="gpudev: %(message)s", stream=sys.stderr)
    try:
        settings = Settings.read(environment)
        _check_programs(settings)
        user = LocalUser(settings)
        user.check()
        lock = open_state(settings)
    except SettingsError as error:
        return _complain(Ended.BAD_SETTING, error)
    except CannotRun as error:
        return _complain(error.code, error)
    except ConfigUnusable as error:
        return _complain(Ended.CONFIG_UNUSABLE, error)
    except StateInUse as error:
        return _complain(Ended.STATE_IN_USE, error)
    except StateUnusable as error:
        return _complain(Ended.STATE_UNUSABLE, error)
    try:
        return asyncio.run(Supervisor(settings, user, environment).run())
    except CannotRun as error:
        return _complain(error.code, error)
    except ConfigUnusable as error:
        return _complain(Ended.CONFIG_UNUSABLE, error)
    except SettingsError as error:
        return _complain(Ended.BAD_SETTING, error)
    except OSError as error:
        return _complain(Ended.STATE_UNUSABLE, error)
    finally:
        os.close(lock)


def _complain(code: Ended, error: Exception) -> int:
    sys.stderr.write(f"gpudev-hub: {error}\n")
    return int(code)


def _check_programs(settings: Settings) -> None:
    missing = preflight.missing()
    if missing:
        raise CannotRun(
            Ended.PROGRAM_MISSING,
            f"not installed on this machine: {', '.join(missing)} "
            "(on Debian: apt-get install openssh-server openssh-client)",
        )
    for problem in preflight.problems():
        log.warning("%s", problem)
    for path in (settings.server_python, _program("configurable-http-proxy"), _program("jupyterhub")):
        if not path.exists():
            raise CannotRun(Ended.PROGRAM_MISSING, f"{path} is missing: run `make setup`")


def _program(name: str) -> Path:
    return Path(sys.executable).parent / name


class Supervisor:
    """All parts of one hub."""

    def __init__(self, settings: Settings, user: LocalUser, environment: Mapping[str, str]) -> None:
        self.settings = settings
        self.user = user
        self._environment = environment
        self._ending = asyncio.Event()
        self._reaping: asyncio.TimerHandle | None = None
        self._parts: list[Part] = []

    async def run(self) -> int:
        """Start everything, say so, wait for Ctrl-C, SIGTERM or the terminal's end, end everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup, a terminal that closes is to end nothing.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._ending.set)
        isolation.adopt_orphans()
        await self._wait_for_port()
        ports = choose_ports(self.settings)
        proxy, service, hub = self._parts = self._make(ports)
        try:
            proxy.start()
            service.start()
            hub.start()
            loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
            if await self._usable(ports):
                before = await self.user.prepare(self._hub_api(ports), LOCAL_USER_SCOPES)
                await self._prepare_ssh()
                self._announce(before)
                await self._ending.wait()
                with suppress(OSError):  # the terminal may be gone
                    sys.stdout.write("gpudev: ending the servers; reservations and queue are kept\n")
                    sys.stdout.flush()
        finally:
            await self._end(proxy, service, hub)
        return Ended.WELL

    def _make(self, ports: Ports) -> list[Part]:
        settings = self.settings
        # No proxy of the outside world has a say between parts of one machine.
        env = {**self._environment, "PYTHONUNBUFFERED": "1", "NO_PROXY": f"{LOOPBACK},localhost"}
        proxy_env = env | {"CONFIGPROXY_AUTH_TOKEN": settings.secret("proxy-token"), "NODE_ENV": "production"}
        proxy = Part(
            "proxy",
            [
                str(_program("configurable-http-proxy")),
                *("--ip", LOOPBACK, "--port", str(settings.port)),
                *("--api-ip", LOOPBACK, "--api-port", str(ports.proxy_api)),
                *("--error-target", f"http://{LOOPBACK}:{ports.hub}/hub/error"),
                *("--log-level", "warn"),
            ],
            proxy_env,
            settings.logs,
            again=lambda: self._renew_routes(ports),
        )
        service = Part("service", [sys.executable, "-m", "gpudev_hub.app", "service"], env, settings.logs)
        hub = Part(
            "hub",
            [str(_program("jupyterhub")), "-f", str(CHECKOUT / "hub-config" / "jupyterhub_config.py")],
            env,
            settings.logs,
        )
        return [proxy, service, hub]

    def _hub_api(self, ports: Ports) -> str:
        return f"http://{LOOPBACK}:{ports.hub}/hub/api"

    async def _wait_for_port(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PORT_PATIENCE
        while not port_free(self.settings.port):
            if loop.time() > deadline:
                raise CannotRun(
                    Ended.PORT_IN_USE,
                    f"port {self.settings.port} of {LOOPBACK} is in use: name another one with GPUDEV_PORT",
                )
            await asyncio.sleep(0.1)

    async def _usable(self, ports: Ports) -> bool:
        """Wait until users can come; false if told to end before."""
        wanted = {
            "hub": f"http://{LOOPBACK}:{ports.hub}/hub/health",
            "service": f"http://{LOOPBACK}:{ports.service}{PREFIX}health/live",
            "proxy": f"{self.settings.url}{PREFIX}health/live",
        }
        loop = asyncio.get_running_loop()
        deadline = loop.time() + USABLE_WITHIN
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            for name, url in wanted.items():
                while not await _answers(client, url):
                    if self._ending.is_set():
                        return False
                    if loop.time() > deadline:
                        part = next(part for part in self._parts if part.name == name)
                        raise CannotRun(
                            Ended.NOT_USABLE,
                            f"the {name} did not come up within {USABLE_WITHIN:.0f} s; "
                            f"the end of {self.settings.logs / name}.log:\n{part.last_words()}",
                        )
                    await asyncio.sleep(0.05)
        return True

    async def _prepare_ssh(self) -> None:
        """``ssh gpu-NAME`` works for who uses the browser only, too: the client adds its line, once."""
        client = await asyncio.create_subprocess_exec(
            str(_program("gpu-dev")), "ssh-sync", env=self._environment, stdin=asyncio.subprocess.DEVNULL
        )
        await client.wait()

    def _announce(self, other_hub: str | None) -> None:
        settings = self.settings
        gpus = find_gpus(settings)
        count = sum(gpus.count().values())
        demo = ", ".join(settings.demo_users)
        sys.stdout.write(
            f"gpudev ready: {settings.url}\n"
            f"  {count} × {gpus.model()} on {', '.join(gpus.count())}\n"
            f"  log in as {settings.user} with the password {settings.secret('password')}\n"
            f"  or as a demo user ({demo}; not isolated from each other or from you) "
            f"with the password {settings.secret('demo-password')}\n"
            f"  command line: {_program('gpu-dev')} reserve --gpus 1 --hours 1\n"
            f"  state and logs: {settings.state}\n"
        )
        if other_hub is not None:
            sys.stdout.write(
                f"  {settings.config} was for {other_hub}, and is for this hub now; to go back: "
                f"gpu-dev login --url {other_hub} (or set GPUDEV_CONFIG for one of them)\n"
            )
        sys.stdout.flush()

    async def _renew_routes(self, ports: Ports) -> None:
        """A proxy that was started anew knows no routes: the Hub is to tell it at once."""
        headers = {"Authorization": f"token {self.settings.secret('supervisor-token')}"}
        async with httpx.AsyncClient(trust_env=False, timeout=5, headers=headers) as client:
            for _ in range(100):
                try:
                    answer = await client.post(f"{self._hub_api(ports)}/proxy")
                    if answer.is_success:
                        return
                except httpx.HTTPError:
                    pass  # proxy or hub are not up yet
                await asyncio.sleep(0.1)
        log.warning("the proxy's routes are renewed by the Hub within half a minute")

    def _child_ended(self) -> None:
        if self._reaping is None:
            self._reaping = asyncio.get_running_loop().call_later(1, self._reap)

    def _reap(self) -> None:
        self._reaping = None
        reap_strays({part.pid for part in self._parts})

    async def _end(self, proxy: Part, service: Part, hub: Part) -> None:
        # First those who would take the end of a server for an event of its own.
        await asyncio.gather(service.end(), hub.end())
        servers = LocalServers(self.settings.servers)
        await asyncio.gather(*(servers.end(*attempt, with_hub=True) for attempt in servers.attempts()))
        await proxy.end()


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False
