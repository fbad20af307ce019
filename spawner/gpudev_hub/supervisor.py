"""``make run``: runs hub, proxy, service and servers of this machine, and restarts each separately."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from enum import IntEnum
from pathlib import Path

import httpx

from . import local_bastion
from .clock import ClockBehind
from .cluster.gpus import GpusUnavailable, find_gpus
from .cluster.servers import LocalServers
from .core.ports import StoreBehind, StoreEmpty, StoreLocked, StoreUnavailable
from .core.words import sentence
from .hub.scopes import LOCAL_USER_SCOPES
from .localuser import ConfigUnusable, LocalUser
from .parts import Part, reap_strays
from .preconditions import GpusMissing, check, running
from .server import isolation, preflight
from .settings import CHECKOUT, LOOPBACK, PREFIX, Ports, Settings, SettingsError
from .ssh.keygen import KeygenFailed
from .state import StateFolder, StateInUse, StateUnusable, choose_ports, listens, port_free

log = logging.getLogger(__name__)

USABLE_WITHIN = 90.0
"""Seconds after which a start fails if the hub is not usable."""
PREDECESSOR_PATIENCE = 3.0
"""Seconds in which the parts of a supervisor that was just killed must release the port and the store."""
DEATHS = 3
"""The start fails if a part ends this often before the hub is usable."""


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
    REFUSED = 17


class CannotRun(Exception):
    """The hub cannot start; the message says why and what to do."""

    def __init__(self, code: Ended, message: str) -> None:
        super().__init__(message)
        self.code = code


_CODES: dict[type[Exception], Ended] = {
    SettingsError: Ended.BAD_SETTING,
    ConfigUnusable: Ended.CONFIG_UNUSABLE,
    StateInUse: Ended.STATE_IN_USE,
    StoreLocked: Ended.STATE_IN_USE,
    StateUnusable: Ended.STATE_UNUSABLE,
    StoreUnavailable: Ended.STATE_UNUSABLE,
    StoreEmpty: Ended.REFUSED,
    StoreBehind: Ended.REFUSED,
    ClockBehind: Ended.REFUSED,
    GpusMissing: Ended.REFUSED,
    GpusUnavailable: Ended.REFUSED,
    KeygenFailed: Ended.STATE_UNUSABLE,
    OSError: Ended.STATE_UNUSABLE,
}


def run(environment: Mapping[str, str]) -> int:
    """Run until a signal; return the exit code."""
    logging.basicConfig(level=logging.WARNING, format="gpudev: %(message)s", stream=sys.stderr)
    state: StateFolder | None = None
    try:
        settings = Settings.read(environment)
        _check_programs(settings)
        user = LocalUser(settings)
        user.check()
        state = StateFolder(settings)
        return asyncio.run(_run(state, settings, user, environment))
    except CannotRun as error:
        return _complain(error.code, error)
    except tuple(_CODES) as error:
        return _complain(next(code for kind, code in _CODES.items() if isinstance(error, kind)), error)
    finally:
        if state is not None:
            state.close()


async def _run(
    state: StateFolder, settings: Settings, user: LocalUser, environment: Mapping[str, str]
) -> int:
    await _once_left(lambda: _check_port(settings))
    await _once_left(lambda: check(settings))
    # Nothing has been changed so far. The next lines create and start things.
    state.furnish()
    with ExitStack() as held:
        ports = choose_ports(settings, held)
        return await Supervisor(settings, user, environment).run(ports)


async def _check_port(settings: Settings) -> None:
    if not port_free(settings.port):
        raise CannotRun(
            Ended.PORT_IN_USE,
            f"port {settings.port} of {LOOPBACK} is in use: choose another port with GPUDEV_PORT",
        )


async def _once_left(attempt: Callable[[], Awaitable[None]]) -> None:
    """Retry ``attempt`` while parts of a supervisor that was just killed still hold the port or the store."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PREDECESSOR_PATIENCE
    while True:
        try:
            return await attempt()
        except (CannotRun, StoreLocked):
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.1)


def _complain(code: Ended, error: Exception) -> int:
    text = str(error)
    # A text with several lines quotes a log, so it is not a sentence.
    sys.stderr.write(f"gpudev-hub: {text if chr(10) in text else sentence(text)}\n")
    return int(code)


def _check_programs(settings: Settings) -> None:
    missing = preflight.missing()
    if missing:
        raise CannotRun(
            Ended.PROGRAM_MISSING,
            f"programs are missing on this machine: {', '.join(missing)} "
            "(on Debian: apt-get install openssh-server openssh-client)",
        )
    for problem in preflight.problems():
        log.warning("%s", problem)
    for path in (settings.server_python, _program("configurable-http-proxy"), _program("jupyterhub")):
        if not path.exists():
            raise CannotRun(Ended.PROGRAM_MISSING, f"{path} does not exist: run `make setup`")


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

    async def run(self, ports: Ports) -> int:
        """Start everything, wait for Ctrl-C, SIGTERM or the end of the terminal, and end everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # With nohup, the end of the terminal must not end the hub.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._ending.set)
        isolation.adopt_orphans()
        if self.settings.bastion:
            local_bastion.prepare(self.settings)
        self._parts = self._make(ports)
        servers = LocalServers(self.settings.servers)
        others = {(sight.id, sight.attempt) for sight in running(servers)}
        try:
            for part in self._parts:
                part.start()
            loop.add_signal_handler(signal.SIGCHLD, self._child_ended)
            if await self._usable(ports):
                before = None
                if self.settings.github is None:
                    before = await self._prepare_user(ports)
                    await self._prepare_ssh()
                if not self._ending.is_set():
                    _say(self._announcement(before, ports))
                await self._ending.wait()
                # A ready hub ends all servers; a failed start ends only the servers that it started.
                others = set()
                _say("gpudev: stopping the servers; reservations and the queue are kept\n")
        finally:
            await self._end(spare=others)
        return Ended.WELL

    def _make(self, ports: Ports) -> list[Part]:
        settings = self.settings
        # Parts of one hub must not use an HTTP proxy to reach each other.
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
                *(("--host-routing",) if settings.subdomains else ()),
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
        parts = [proxy, service, hub]
        if settings.bastion:
            argv, bastion_env = local_bastion.command(settings, ports, env)
            parts.append(Part("bastion", argv, bastion_env, settings.logs))
        return parts

    def _hub_api(self, ports: Ports) -> str:
        return f"http://{LOOPBACK}:{ports.hub}/hub/api"

    async def _usable(self, ports: Ports) -> bool:
        """Wait until the hub is usable; return false if a signal came first."""
        proxy, service, hub, *more = self._parts
        bastion_port = self.settings.bastion_port(ports)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + USABLE_WITHIN
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            wanted: list[tuple[Part, Callable[[], Awaitable[str]]]] = [
                (hub, lambda: _problem(client, f"http://{LOOPBACK}:{ports.hub}/hub/health")),
                (service, lambda: _problem(client, f"http://{LOOPBACK}:{ports.service}{PREFIX}health/live")),
                (proxy, lambda: _problem(client, f"{self.settings.url}{PREFIX}health/live")),
                *((bastion, lambda: _not_listening(bastion_port)) for bastion in more),
            ]
            for part, look in wanted:
                while problem := await look():
                    if self._ending.is_set():
                        return False
                    self._give_up_if_hopeless()
                    if loop.time() > deadline:
                        raise self._not_usable(part, f"did not start within {USABLE_WITHIN:g} s: {problem}")
                    await asyncio.sleep(0.05)
        return True

    def _give_up_if_hopeless(self) -> None:
        for part in self._parts:
            if part.refused:
                raise self._not_usable(part, "refused to start")
            if part.deaths >= DEATHS:
                raise self._not_usable(part, f"ended {part.deaths} times during its start")

    def _not_usable(self, part: Part, why: str) -> CannotRun:
        log_file = self.settings.logs / f"{part.name}.log"
        return CannotRun(
            Ended.NOT_USABLE, f"the {part.name} {why}; the end of {log_file}:\n{part.last_words()}"
        )

    async def _prepare_user(self, ports: Ports) -> str | None:
        """Run ``LocalUser.prepare``; run it again if the Hub dies during the call.

        Returns ``None`` after a signal. Raises ``CannotRun`` if the Hub keeps refusing.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + USABLE_WITHIN
        while not self._ending.is_set():
            try:
                return await self.user.prepare(self._hub_api(ports), LOCAL_USER_SCOPES)
            except httpx.HTTPError as error:
                self._give_up_if_hopeless()
                if loop.time() > deadline:
                    hub = next(part for part in self._parts if part.name == "hub")
                    why = f"gives no token to {self.settings.user} ({error})"
                    raise self._not_usable(hub, why) from error
                await asyncio.sleep(0.1)
        return None

    async def _prepare_ssh(self) -> None:
        """Add the client's SSH configuration, so that ``ssh gpu-NAME`` also works for browser users."""
        client = await asyncio.create_subprocess_exec(
            str(_program("gpu-dev")), "ssh-sync", env=self._environment, stdin=asyncio.subprocess.DEVNULL
        )
        await client.wait()

    def _announcement(self, other_hub: str | None, ports: Ports) -> str:
        settings = self.settings
        gpus = find_gpus(settings)
        count = sum(gpus.count().values())
        text = (
            f"gpudev ready: {settings.url}\n"
            f"  {count} × {gpus.model()} on {', '.join(gpus.count())}\n"
            f"{self._who_logs_in()}"
            f"  state and logs: {settings.state}\n"
        )
        if settings.bastion:
            text += f"  SSH goes through the bastion at {LOOPBACK}:{settings.bastion_port(ports)}\n"
        if other_hub is not None:
            text += (
                f"  {settings.config} pointed to {other_hub} and points to this hub now; to go back: "
                f"gpu-dev login --url {other_hub} (or set GPUDEV_CONFIG for one of them)\n"
            )
        return text

    def _who_logs_in(self) -> str:
        settings, client = self.settings, _program("gpu-dev")
        if settings.github is not None:
            return (
                f"  log in with GitHub ({settings.github.url}): members of {settings.github.team} with push "
                f"access to {settings.github.repository}; their servers are not isolated from each other\n"
                f"  command line: {client} login --url {settings.url}, "
                f"then {client} reserve --gpus 1 --hours 1\n"
            )
        demo = ", ".join(settings.demo_users)
        return (
            f"  log in as {settings.user} with the password {settings.secret('password')}\n"
            f"  or as a demo user ({demo}) with the password {settings.secret('demo-password')}\n"
            "  demo users are not isolated from each other or from you\n"
            f"  command line: {client} reserve --gpus 1 --hours 1\n"
        )

    async def _renew_routes(self, ports: Ports) -> None:
        """Ask the Hub to add its routes to a restarted proxy, which has none."""
        headers = {"Authorization": f"token {self.settings.secret('supervisor-token')}"}
        async with httpx.AsyncClient(trust_env=False, timeout=5, headers=headers) as client:
            for _ in range(100):
                with suppress(httpx.HTTPError):  # proxy or hub are not up yet
                    answer = await client.post(f"{self._hub_api(ports)}/proxy")
                    if answer.is_success:
                        return
                await asyncio.sleep(0.1)
        log.warning("the proxy has no routes yet; the Hub renews them within 30 s")

    def _child_ended(self) -> None:
        if self._reaping is None:
            self._reaping = asyncio.get_running_loop().call_later(1, self._reap)

    def _reap(self) -> None:
        self._reaping = None
        reap_strays({part.pid for part in self._parts})

    async def _end(self, spare: Collection[tuple[str, int]]) -> None:
        """End the parts, and all servers except ``spare``."""
        proxy, service, hub, *more = self._parts
        await asyncio.gather(*(part.end() for part in more))
        # First end the parts that would react to the end of a server.
        await asyncio.gather(service.end(), hub.end())
        servers = LocalServers(self.settings.servers)
        ours = [attempt for attempt in servers.attempts() if attempt not in spare]
        await asyncio.gather(*(servers.end(*attempt, with_hub=True) for attempt in ours))
        await proxy.end()


def _say(text: str) -> None:
    # stdout's encoding may lack characters of the text. Replace them, because an error would end the servers.
    encoding = sys.stdout.encoding
    with suppress(OSError):  # the terminal may be gone
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()


async def _problem(client: httpx.AsyncClient, url: str) -> str:
    """Return what is wrong with the answer of an address; empty if it succeeds."""
    try:
        answer = await client.get(url)
    except httpx.HTTPError as error:
        return f"{url} does not answer ({str(error) or type(error).__name__})"
    return "" if answer.is_success else f"{url} answers {answer.status_code} {answer.reason_phrase}"


async def _not_listening(port: int) -> str:
    return "" if await listens(LOOPBACK, port) else f"nothing listens on port {port} of {LOOPBACK}"
