"""Real servers without a hub: sshd, agent, a small Jupyter, and a service with their routes.

The service is a plain HTTP server with the real ``Access``, tokens and launches. Its state is a dict.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from gpudev import wire
from gpudev_hub.core.model import (
    HOUR,
    SECOND,
    Millis,
    NodeSlots,
    Owner,
    Presence,
    Request,
    Reservation,
    Shape,
    State,
)
from gpudev_hub.core.policy import Policy, PoolSettings
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.server import gang, launcher, places, processes, sshd
from gpudev_hub.service.cuts import Cuts
from gpudev_hub.ssh.access import Access
from gpudev_hub.ssh.bastion import HOST_KEY_ALIAS, Bastion
from gpudev_hub.ssh.ca import HostCA
from gpudev_hub.ssh.directory import LocalDirectory
from gpudev_hub.ssh.keygen import keep_pair, public_of
from gpudev_hub.ssh.launches import Launches, ServerTokens
from gpudev_hub.web.bastion import CutsAsked, SessionEvents, lines_to_end
from hub_users import free_port

Value = TypeVar("Value")
OWNER = Owner("local:me", "me", "me")
OTHER = Owner("local:alice", "alice", "alice")
"""Has a key that the service made."""
BASTION_CODE = Path(__file__).parents[2] / "infra" / "images" / "bastion" / "bastion"
POLICY = Policy((PoolSettings("simulated", 8, ("default",), simulated=True),))
PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


def now() -> Millis:
    return time.time_ns() // 1_000_000


def eventually(what: Callable[[], Any], timeout: float = 20) -> Any:
    """Return the first true value of ``what()``. Fail if there is none in time."""
    deadline = time.monotonic() + timeout
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.02)


@dataclass
class Live:
    """The state from which access is decided."""

    reservations: dict[str, Reservation] = field(default_factory=dict)
    sights: dict[str, ServerSight] = field(default_factory=dict)

    def sight(self, id: str) -> ServerSight | None:
        return self.sights.get(id)


class StandIn:
    """The service's routes for servers over real HTTP. The port stays the same after a restart."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = free_port()
        self.reports: list[dict[str, Any]] = []
        self.notices: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        """Reported by the bastion."""
        self.lookups = 0
        self.override: tuple[int, bytes] | None = None
        """If set, the broken answer to each look-up of keys."""
        self.delay = 0.0
        self.changed = threading.Condition()
        self.cuts = Cuts()
        self.cuts.begin(1)
        self.server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def answer(self, code: int, body: bytes = b"") -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except BrokenPipeError:
                    pass

            def handle_bastion(self, what: str, query: dict[str, str], body: bytes) -> None:
                if self.headers.get("Authorization") != f"Bearer {stand_in.world.bastion_token}":
                    self.answer(403)
                    return
                time.sleep(stand_in.delay)
                code, text = stand_in.override or (200, stand_in.bastion(what, query, body))
                self.answer(code, text)

            def handle_one(self, body: bytes) -> None:
                url = urlsplit(self.path)
                if url.path.startswith("/bastion/"):
                    query = {name: values[0] for name, values in parse_qs(url.query).items()}
                    self.handle_bastion(url.path.removeprefix("/bastion/"), query, body)
                    return
                *_, word, server, what = url.path.split("/")
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                record = stand_in.world.live.reservations.get(server)
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                known = word == "servers" and url.path.startswith("/services/gpudev/api/v1/")
                if (
                    not known
                    or record is None
                    or not stand_in.world.tokens.verify(server, record.attempt, token)
                ):
                    self.answer(403)
                elif what == "keys":
                    stand_in.lookups += 1
                    time.sleep(stand_in.delay)
                    lines = asyncio.run(stand_in.world.access.authorized_keys(server, query["fingerprint"]))
                    code, text = stand_in.override or (200, "".join(f"{line}\n" for line in lines).encode())
                    self.answer(code, text)
                elif what == "report":
                    stand_in.reports.append(json.loads(body))
                    self.answer(204)
                elif what == "notices":
                    after, cut_after = int(query["after"]), int(query["cut_after"])
                    self.answer(200, stand_in.wait(record, after, cut_after, float(query["wait"])))
                else:
                    self.answer(404)

            def do_GET(self) -> None:
                self.handle_one(b"")

            def do_POST(self) -> None:
                self.handle_one(self.rfile.read(int(self.headers["Content-Length"])))

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        with self.changed:
            self.changed.notify_all()

    def bastion(self, what: str, query: dict[str, str], body: bytes) -> bytes:
        """Return the service's answer to a bastion."""
        if what == "keys":
            self.lookups += 1
            return self.world.bastion_keys(query["fingerprint"])
        if what == "cuts":
            return self.world.bastion_cuts(msgspec.json.decode(body, type=CutsAsked))
        self.events += json.loads(body)["events"]
        self.world.bastion.record(msgspec.json.decode(body, type=SessionEvents).events)
        return b""

    def tell(self, text: str) -> None:
        with self.changed:
            self.notices.append({"seq": len(self.notices) + 1, "text": text, "minutes": None})
            self.changed.notify_all()

    def cut(self, id: str | None, subject: str) -> None:
        with self.changed:
            self.cuts.add(2, subject, id, now())
            self.changed.notify_all()

    def wait(self, record: Reservation, after: int, cut_after: int, wait: float) -> bytes:
        deadline = time.monotonic() + wait
        with self.changed:
            while True:
                new = [one for one in self.notices if one["seq"] > after]
                cuts = self.cuts.after(cut_after, record.id)
                if new or cuts.cuts or cuts.missed or not self.server:
                    break
                if not self.changed.wait(max(0.0, deadline - time.monotonic())):
                    break
        latest = self.world.live.reservations.get(record.id, record)
        assert latest.ends_at is not None
        return msgspec.json.encode(
            {
                "notices": new,
                "ends_at": wire_time(latest.ends_at),
                "cut": [{"subject": c.subject, "fingerprints": c.fingerprints} for c in cuts.cuts],
                "cut_after": cuts.latest,
                "check": cuts.missed,
            }
        )


def wire_time(at: Millis) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at // SECOND))


class Jupyter:
    """Answers ``/api`` below its base like Jupyter."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                self.send_response(200 if self.path.endswith("/api") else 404)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Rank:
    """sshd and agent of one rank, started like by the launcher."""

    def __init__(
        self,
        world: World,
        launch: dict[str, Any],
        rank: int,
        peers: list[dict[str, Any]],
        jupyter: bool,
        shell: str | None = None,
    ) -> None:
        self.folder = world.folder / f"{launch['id']}-{launch['attempt']}" / str(rank) / "private"
        self.port = int(peers[rank]["port"])
        self.shell = shell
        self.home = world.home
        self.marker = f"{launch['id']}/{launch['attempt']}/{rank}"
        # Processes are ended by their marker: of two servers with one id, each would end the other's.
        assert not processes.marked(self.marker), f"a server {self.marker} of another test runs"
        self.jupyter = Jupyter() if rank == 0 and jupyter else None
        env = {
            "HOME": str(world.home),
            "PATH": PATH,
            "SHELL": shell or "/bin/bash",
            "LANG": "C.UTF-8",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, launch["allocation"][rank]["slots"])),
            "NODE_RANK": str(rank),
            "NNODES": str(len(peers)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "GPUDEV_SERVER": self.marker,
            "TRICKY": 'it\'s "a b"; $(false) `x`\nsecond line \\',
        }
        if rank == 0:
            port = self.jupyter.port if self.jupyter is not None else free_port()
            env["JUPYTERHUB_SERVICE_URL"] = f"http://127.0.0.1:{port}/user/me/{launch['id']}/"
        self.folder.mkdir(mode=0o700, parents=True)
        self.env = launcher.environment(self.folder, peers, env, shared=True)
        argv = sshd.prepare(self.folder, launch, rank, self.port, self.env, peers)
        agent = [sys.executable, "-I", "-m", "gpudev_hub.server.agent", str(self.folder)]
        self.log = self.folder.parent / "sshd.log"
        self.agent_log = self.folder.parent / "agent.log"
        self.sshd = self._start(argv, self.log)
        self.agent = self._start(agent, self.agent_log)
        eventually(lambda: "Server listening" in self.log.read_text())

    def _start(self, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
        if self.shell is not None:
            # sshd starts the account's shell in the account's home: another one for this process alone.
            passwd = self.folder.parent / "passwd"
            lines = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
            own = str(os.getuid())
            changed = [[*line[:5], str(self.home), self.shell] if line[2] == own else line for line in lines]
            passwd.write_text("".join(":".join(line) + "\n" for line in changed))
            script = 'mount --bind "$0" /etc/passwd && exec "$@"'
            argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(passwd), *argv]
        with log.open("ab") as output:
            return subprocess.Popen(
                argv, env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/"
            )

    def stop(self) -> None:
        ours = processes.descendants(self.sshd.pid) | processes.descendants(self.agent.pid)
        ours |= {self.sshd.pid, self.agent.pid, *processes.marked(self.marker)}
        processes.send(ours, signal.SIGKILL)
        self.sshd.wait()
        self.agent.wait()
        if self.jupyter is not None:
            self.jupyter.stop()
        gang.cleanup(self.folder, self.env)
        places.remove(self.folder)


def used(run: Path) -> dict[str, set[str]]:
    """Return the connections of a bastion through which a target was asked for, with their permitted targets.

    ``run`` is the bastion's folder. Connections that have just ended may still be there.
    """
    found = {}
    for path in (run / "opened").glob("*"):
        with suppress(FileNotFoundError):  # it has ended
            if path.stat().st_size:
                found[path.name] = set((run / "connections" / path.name).read_text().splitlines())
    return found


class Door:
    """A bastion on this machine."""

    def __init__(self, world: World, port: int, env: dict[str, str]) -> None:
        self.port = port
        self.account = world.address.user
        self.folder = world.folder / f"bastion-{len(world.doors)}"
        self.secrets = self.folder / "secrets"
        self.run = self.folder / "run"
        self.log = self.folder / "log"
        self.secrets.mkdir(mode=0o700, parents=True)
        key = self.secrets / "host_ed25519"
        keep_pair(key, "bastion")
        certificate = world.ca.sign(public_of(key).read_text().strip(), [HOST_KEY_ALIAS])
        (self.secrets / "host_ed25519-cert.pub").write_text(certificate + "\n")
        (self.secrets / "token").write_text(world.bastion_token)
        (self.secrets / "token").chmod(0o400)
        self.env = {
            "PATH": os.environ["PATH"],
            "GPUDEV_GATE": f"http://127.0.0.1:{world.service.port}",
            "GPUDEV_BASTION_SECRETS": str(self.secrets),
            "GPUDEV_BASTION_RUN": str(self.run),
            "GPUDEV_BASTION_PORT": str(port),
            "GPUDEV_BASTION_ADDRESS": "127.0.0.1",
            "GPUDEV_BASTION_ACCOUNT": world.address.user,
            "GPUDEV_BASTION_TARGETS": "127.0.0.1:*",
            "GPUDEV_BASTION_PENALTIES": "no",
            **env,
        }
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                ["/bin/bash", str(BASTION_CODE)],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def events(self) -> list[dict[str, Any]]:
        """Return the audit log."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


class World:
    """The servers of one account, the service, and the user's ``~/.ssh``."""

    def __init__(self, folder: Path, user: str | None = None, *, bastion: bool = False) -> None:
        """Prepare it. ``user``: the servers' account, or this one. ``bastion``: clients use a bastion."""
        self.folder = folder
        self.home = folder / "home"
        (self.home / ".ssh").mkdir(mode=0o700, parents=True)
        self.live = Live()
        self.ca = HostCA(folder / "ca")
        self.tokens = ServerTokens(b"k" * 32)
        self.service = StandIn(self)
        self.revoked: set[str] = set()
        directory = LocalDirectory(OWNER.subject, self.home / ".ssh", folder / "demo")
        own = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        self.user = user or own
        self.set_forward = 0
        """Milliseconds by which the machine's clock was set forward since the service started."""
        self.address = self.wire_bastion(free_port(), "nobody" if os.getuid() == 0 else own)
        self.access = Access(
            self.live,
            directory,
            known_hosts=self.ca.known_hosts,
            user=self.user,
            now=now,
            on_machine=lambda at: at + self.set_forward,
            allowed=lambda subject: subject not in self.revoked,
            let_in=self.service.cuts.let_in,
            bastion=self.address if bastion else None,
        )
        self.refused: dict[str, str] = {}
        """Reasons why people may not enter, by subject."""
        self.bastion = Bastion(
            self.live,
            directory,
            now=now,
            on_machine=lambda at: at + self.set_forward,
            refusal=lambda owner: self.refused.get(owner.subject, ""),
        )
        self.bastion_token = "the-bastions-secret"
        self.doors: list[Door] = []
        self.launches = Launches(
            folder / "launches",
            ca=self.ca,
            tokens=self.tokens,
            policy=POLICY,
            service_url=f"http://127.0.0.1:{self.service.port}/services/gpudev/",
        )
        self.ranks: dict[str, list[Rank]] = {}

    def __enter__(self) -> Self:
        self.asking = threading.Lock()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.service.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for door in self.doors:
            door.stop()
        for server in list(self.ranks):
            self.stop(server)
        self.service.stop()
        with self.asking:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()

    def ask(self, question: Callable[[], Coroutine[Any, Any, list[Value]]]) -> list[Value]:
        """Return an answer of the service's loop; empty after the end of this ``World``."""
        with self.asking:
            if self.loop.is_closed():
                return []
            return asyncio.run_coroutine_threadsafe(question(), self.loop).result(20)

    def bastion_keys(self, fingerprint: str) -> bytes:
        """Return the lines of ``authorized_keys`` for a key."""
        lines = self.ask(lambda: self.bastion.authorized_keys(fingerprint))
        return "".join(f"{line}\n" for line in lines).encode()

    def bastion_cuts(self, asked: CutsAsked) -> bytes:
        """Return the connections to end; wait until there are some."""
        deadline = time.monotonic() + asked.wait
        while True:
            found = self.ask(lambda: self.bastion.to_end(asked.connections))
            if found or time.monotonic() > deadline:
                return lines_to_end(found).encode()
            time.sleep(0.1)

    def door(self, port: int | None = None, **env: str) -> Door:
        """Start a bastion like its image."""
        door = Door(self, port or self.address.port, env)
        self.doors.append(door)
        eventually(lambda: "Server listening" in door.log.read_text() or door.process.poll() is not None)
        return door

    def reserve(
        self, id: str, *, gpus: int = 2, nodes: int = 1, name: str | None = None, owner: Owner = OWNER
    ) -> Reservation:
        """Add a reservation that holds its slots. Nothing runs yet."""
        at = now()
        record = Reservation(
            id=id,
            seq=len(self.live.reservations) + 1,
            owner=owner,
            request=Request(Shape(gpus, nodes), "simulated", HOUR, "default", name),
            request_id=None,
            created_at=at,
            startup=60 * SECOND,
            teardown=30 * SECOND,
            cap=16,
            state=State.READY,
            attempt=1,
            admitted_at=at,
            ready_at=at,
            hard_end=at + 2 * HOUR + 30 * SECOND,
            allocation=tuple(NodeSlots(f"node-{i + 1}", tuple(range(gpus))) for i in range(nodes)),
        )
        self.live.reservations[id] = record
        return record

    def start(
        self,
        id: str,
        *,
        gpus: int = 2,
        nodes: int = 1,
        name: str | None = None,
        jupyter: bool = True,
        shell: str | None = None,
        owner: Owner = OWNER,
    ) -> list[Rank]:
        """Add a reservation, start its servers, and update ``~/.ssh``."""
        record = self.reserve(id, gpus=gpus, nodes=nodes, name=name, owner=owner)
        launch = msgspec.json.decode(msgspec.json.encode(asyncio.run(self.launches.make(record))))
        peers = [{"host": "127.0.0.1", "port": free_port()} for _ in range(nodes)]
        self.ranks[id] = [Rank(self, launch, rank, peers, jupyter, shell) for rank in range(nodes)]
        addresses = {number: ("127.0.0.1", rank.port) for number, rank in enumerate(self.ranks[id])}
        self.live.sights[id] = ServerSight(id, 1, Presence.PRESENT, sshd=addresses)
        self.sync()
        return self.ranks[id]

    def change(self, id: str, **fields: Any) -> None:
        """Change fields of a reservation."""
        self.live.reservations[id] = replace(self.live.reservations[id], **fields)

    def stop(self, id: str) -> None:
        """End a reservation and its servers."""
        for rank in self.ranks.pop(id):
            rank.stop()
        self.live.reservations.pop(id, None)
        self.live.sights.pop(id, None)

    def wire_access(self, person: Owner = OWNER) -> wire.SshAccess:
        """Return the answer of ``GET ssh``."""
        return asyncio.run(self.access.hosts(person))

    def wire_bastion(self, port: int, user: str) -> wire.SshBastion:
        """Return the address of a bastion on this machine."""
        return wire.SshBastion(host="127.0.0.1", port=port, user=user, host_key_alias=HOST_KEY_ALIAS)

    def sync(self) -> None:
        """Update ``~/.ssh`` like ``gpu-dev``."""
        from gpudev import ssh

        ssh.sync(self.wire_access())

    @property
    def config(self) -> Path:
        """Return the file for ``ssh -F``, which is necessary because OpenSSH ignores ``$HOME``."""
        return self.home / ".ssh" / "gpudev" / "config"

    def argv(self, *arguments: str) -> list[str]:
        """Return a command of ``ssh`` with the user's settings."""
        return ["ssh", "-F", str(self.config), *arguments]

    def run(
        self, program: str, *arguments: str, input: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``ssh``, ``scp`` or ``sftp`` with the user's settings. Without a terminal, prompts fail."""
        return subprocess.run(
            [program, "-F", str(self.config), *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "SSH_ASKPASS_REQUIRE": "never"},
            start_new_session=True,
            check=False,
        )
