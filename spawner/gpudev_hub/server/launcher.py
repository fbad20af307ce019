"""The launcher of one rank starts Jupyter, sshd and the agent, keeps their logs, and stops all processes.

``python -I -m gpudev_hub.server.launcher FOLDER`` reads ``FOLDER/private/spec.json`` (written by the
spawner), starts the launcher in a session of its own, and exits once the record is on disk. The launcher does
not depend on the hub, the service or the supervisor. It is the sub-reaper of all processes that users start,
and stops them before it ends.

Parts that end are restarted while the other parts keep running. JupyterLab ends the server only if it was
asked to shut down or could never be started (``lab.py``). SIGTERM ends the server: Jupyter shuts down,
sessions get SIGHUP, and processes left after the grace period are killed. SIGUSR1 does the same, and records
that the hub on this machine was shut down.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import examples, gang, isolation, lab, places, private, processes, record, shells, sshd
from .logs import Log, Sink
from .part import Part, or_root
from .record import TOLD, Exit, Record


def environment(
    folder: Path, peers: Sequence[Mapping[str, Any]], env: Mapping[str, str], shared: bool
) -> dict[str, str]:
    """Write the environment's files to the private folder; return the variables of all parts and sessions.

    ``shared``: other servers use this machine too.
    """
    return shells.prepare(folder, gang.environment(folder, peers, env) | places.environment(folder, shared))


class Launcher:
    """The main loop; it runs in one thread."""

    def __init__(
        self,
        spec: dict[str, Any],
        folder: Path,
        logs: Callable[[str], Sink],
        listen: str | None = gang.LOOPBACK,
    ) -> None:
        """Prepare the parts of the server.

        ``folder`` is the private folder of the server; ``logs`` returns the log of a part by name. ``spec``
        is the specification of a rank (see ``hub/local.py``). sshd listens on the address ``listen``;
        ``None`` means all addresses.
        """
        self.spec = spec
        self.folder = folder
        self.logs = logs
        self.listen = listen
        self.rank = int(spec["rank"])
        self.log = logs("launcher")
        self.selector = selectors.DefaultSelector()
        self.jupyter: Part | None = None
        self.lab = lab.Lab(Path(spec["home"]), spec["env"])
        self.env: dict[str, str] = {}
        self.parts: list[Part] = []
        self.exit: Exit | None = None
        """Set when the server starts to end."""
        self.deadline = 0.0
        self.hung_up: set[int] = set()
        self.hung = False
        """Whether JupyterLab was killed because it did not answer."""
        self.told: Exit | None = None

    def _part(self, name: str, argv: list[str], env: dict[str, str]) -> Part:
        return Part(name, argv, env, self.spec["home"], self.logs(name))

    def prepare(self) -> None:
        """Write the files of sshd and start the parts. Jupyter is first, because its start takes longest."""
        spec = self.spec
        env = self.env = environment(
            self.folder, spec["peers"], spec["env"], shared=self.listen == gang.LOOPBACK
        )
        argv = sshd.prepare(
            self.folder, spec["launch"], self.rank, spec["sshd_port"], env, spec["peers"], self.listen
        )
        if spec["jupyter"] is not None:
            self.jupyter = self._part("jupyter", [], env)
            self._start_jupyter(self.jupyter)
            with self._logged(f"the home did not get the folder {examples.FOLDER}"):
                examples.give(Path(spec["home"]))
        agent = [sys.executable, "-I", "-m", "gpudev_hub.server.agent", str(self.folder)]
        self.parts = [self._part("sshd", argv, env), self._part("agent", agent, env)]
        for part in self.parts:
            self._start(part)

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        """Log an ``OSError`` instead of raising it, so that a full disk does not end the server."""
        try:
            yield
        except OSError as error:
            self.log.write(f"{what}: {error}\n".encode())

    def _start_jupyter(self, part: Part) -> None:
        plain = self.folder / "lab" if self.lab.plain else None
        if plain is not None:
            plain.mkdir(mode=0o700, exist_ok=True)
        env = {**self.env, "HOME": or_root(self.env["HOME"])}
        part.argv = lab.command(self.spec["jupyter"], env, float(self.spec["grace"]), plain)
        part.env = lab.environment(self.env, self.folder, plain)
        # JupyterLab also reads configuration from the working directory.
        part.cwd = str(plain or self.spec["home"])
        (self.folder / private.ANSWERED).unlink(missing_ok=True)
        with self._logged("the notice about JupyterLab could not be written"):
            private.write(self.folder / private.NOTICE, self.lab.notice)
        self._start(part)
        runtime = self.env.get("JUPYTER_RUNTIME_DIR")
        if part.pid is not None and runtime is not None:
            with self._logged(f"{lab.PID} could not be written"):
                Path(runtime).mkdir(mode=0o700, exist_ok=True)
                private.write(Path(runtime) / lab.PID, f"{part.pid}\n")

    def _start(self, part: Part) -> None:
        try:
            output = part.start()
        except OSError as error:
            self._note(part, f"could not be started: {error}")
            part.ended()
            if part is self.jupyter and not self.lab.worked:
                self.finish(Exit(127, f"JupyterLab could not be started: {error}"))
            return
        self.selector.register(output, selectors.EVENT_READ, part)

    def run(self) -> None:
        wake, waker = socket.socketpair()
        with wake, waker:
            for end in (wake, waker):
                end.setblocking(False)
            signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
            try:
                self._run(wake)
            finally:
                # Otherwise a late SIGCHLD is written into the next file with this descriptor: the record.
                signal.set_wakeup_fd(-1)

    def _run(self, wake: socket.socket) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._tell)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(wake, selectors.EVENT_READ, None)
        try:
            self.prepare()
        except sshd.SshdUnusable as error:
            self.finish(Exit(1, f"sshd could not be started: {error}"))
        except Exception as error:
            self.log.write(traceback.format_exc().encode())
            self.finish(Exit(1, f"the server could not be prepared: {error}"))
        while True:
            for key, _ in self.selector.select(self._pause()):
                if key.data is None:
                    wake.recv(4096)
                else:
                    self._read(key.fd, key.data)
            self._reap()
            if self.told is not None:
                self.finish(self.told)
            if self.exit is not None:
                if self._sweep():
                    return
                continue
            now = time.monotonic()
            for part in self.parts:
                if part.pid is None and part.due is not None and part.due <= now:
                    self._start(part)
            if self.jupyter is not None:
                self._watch_jupyter(self.jupyter, now)

    def _watch_jupyter(self, part: Part, now: float) -> None:
        if part.pid is None and part.due is not None and part.due <= now:
            self._start_jupyter(part)
        elif part.pid is not None and not self.hung and (at := self._patience_ends(part)) and at <= now:
            self.hung = True
            processes.send([part.pid], signal.SIGKILL)

    def _patience_ends(self, part: Part) -> float | None:
        """Return by when JupyterLab must answer (monotonic); ``None`` if it has answered or has no limit."""
        if (self.folder / private.ANSWERED).exists() or (patience := self.lab.patience()) is None:
            return None
        return part.started + patience

    def _tell(self, number: int, _: object) -> None:
        with_hub = number == signal.SIGUSR1
        self.told = Exit(0, "the hub on this machine was shut down" if with_hub else TOLD, with_hub=with_hub)

    def _pause(self) -> float | None:
        if self.exit is not None:
            return 0.02
        due = [part.due for part in self.parts if part.due is not None]
        if self.jupyter is not None:
            at = self.jupyter.due if self.jupyter.pid is None else self._patience_ends(self.jupyter)
            due += [at] if at is not None and not self.hung else []
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read(self, descriptor: int, part: Part) -> None:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        if data:
            part.take(data)
        else:
            self.selector.unregister(descriptor)
            os.close(descriptor)
            if part.output == descriptor:
                part.output = None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if self.jupyter is not None and pid == self.jupyter.pid:
                self._jupyter_ended(self.jupyter, code)
            for part in self.parts:
                if pid == part.pid:
                    part.drain()
                    part.ended()
                    self._note(part, f"ended with exit code {code}")

    def _jupyter_ended(self, part: Part, code: int) -> None:
        part.drain()
        ending = lab.Ending(
            code,
            part.said(),
            (self.folder / private.ANSWERED).exists(),
            time.monotonic() - part.started,
            hung=self.hung,
        )
        self.hung = False
        part.ended()
        over = self.lab.ended(ending)
        if over is not None or self.exit is not None:
            part.due = None
            self.finish(over or Exit(code, lab.what(ending)))
            return
        self._note(part, lab.what(ending), said=False)

    def _note(self, part: Part, what: str, said: bool = True) -> None:
        """Write how the part ended to its log, and to a file for the agent, which reports it."""
        last = part.last_line() if said else ""
        part.log.write(f"{part.name} {what}\n".encode())
        with self._logged(f"the end of {part.name} could not be recorded"):
            private.write(
                private.trouble(self.folder, part.name), f"{part.name} {what}{': ' if last else ''}{last}\n"
            )

    def finish(self, how: Exit) -> None:
        """Begin to end the server. Only the first reason is recorded."""
        if self.exit is not None:
            return
        self.exit = how
        self.deadline = time.monotonic() + float(self.spec["grace"])
        # Jupyter stops its kernels and terminals itself. A second SIGTERM would kill it too early.
        if self.jupyter is not None and self.jupyter.pid is not None:
            processes.send([self.jupyter.pid], signal.SIGTERM)

    def _sweep(self) -> bool:
        """Signal the remaining processes once. Returns true when none is left."""
        left = processes.descendants(os.getpid())
        left.update(processes.marked(self.spec["env"][record.MARKER]))
        left.discard(os.getpid())
        if not left:
            return True
        if time.monotonic() > self.deadline:
            # Processes under sudo cannot be killed from here; in a pod they end with the container.
            return processes.send(left, signal.SIGKILL) == left
        jupyter = self.jupyter.pid if self.jupyter is not None else None
        shielded = {jupyter} | processes.descendants(jupyter) if jupyter is not None else set()
        connections = {pid for pid in left if processes.is_sshd(pid)}
        if left == connections:
            # Only connections without a session are left, so no work is interrupted.
            processes.send(left, signal.SIGKILL)
            return False
        new = left - shielded - connections - self.hung_up
        for pid in new:
            processes.send([pid], *processes.farewell(processes.caught(pid)), signal.SIGCONT)
        self.hung_up |= new
        return False


def _record(spec: dict[str, Any]) -> Record:
    """Return the record of this process, the launcher of a rank."""
    launch, rank = spec["launch"], int(spec["rank"])
    place = launch["allocation"][rank]
    me = processes.start_time(os.getpid())
    assert me is not None
    return Record(
        id=launch["id"],
        attempt=launch["attempt"],
        rank=rank,
        pid=os.getpid(),
        start_time=me,
        boot=record.boot_id(),
        node=place["node"],
        slots=tuple(place["slots"]),
        jupyter_port=spec["jupyter_port"] if rank == 0 else None,
        sshd_port=spec["sshd_port"],
    )


def _daemon(folder: Path, spec: dict[str, Any], answer: int) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(
        folder / record.LOGS / "launcher.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir("/")
    isolation.adopt_orphans()
    if os.getuid() == 0:
        try:
            isolation.overlay(
                folder / record.PRIVATE, home=Path(spec["home"]) if spec["passwd_home"] else None
            )
        except OSError as error:
            sys.stderr.write(f"the machine's own /etc/passwd and /etc/profile are used: {error}\n")
    kept = folder / record.PRIVATE
    launcher = Launcher(spec, kept, lambda name: Log(folder / record.LOGS / f"{name}.log"))
    mine = _record(spec)
    record.write(folder, mine)
    os.write(answer, b"ok")
    os.close(answer)
    launcher.run()
    # Remove private files, then record why the server ended.
    gang.cleanup(kept, spec["env"])
    places.remove(kept)
    shutil.rmtree(kept, ignore_errors=True)
    record.write(folder, replace(mine, exit=launcher.exit))


def main(argv: list[str]) -> int:
    """Read the specification and start the launcher in the background. Returns 0 after its record exists."""
    folder = Path(argv[1]).absolute()
    (folder / record.LOGS).mkdir(mode=0o700, exist_ok=True)
    spec: dict[str, Any] = json.loads((folder / record.PRIVATE / "spec.json").read_text())
    heard, answer = os.pipe()
    if os.fork() == 0:
        os.close(heard)
        code = 1
        try:
            _daemon(folder, spec, answer)
            code = 0
        except BaseException as error:
            traceback.print_exc()
            with suppress(OSError):  # the parent may already have its answer
                os.write(answer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(code)
    os.close(answer)
    said = b""
    while piece := os.read(heard, 4096):
        said += piece
    if said == b"ok":
        return 0
    sys.stderr.write(f"the launcher of {folder} could not start: {said.decode(errors='replace')}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
