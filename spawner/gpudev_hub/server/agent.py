"""The server's agent: says when Jupyter and sshd answer, and tells the user in his terminals what matters.

``python -I -m gpudev_hub.server.agent FOLDER`` reads ``FOLDER/agent.json`` (``sshd.py`` writes it) and the
token beside it. Two threads, both asleep nearly always: one watches the ports, one waits for notices. The
service may go away for any time: whatever was not acknowledged is sent again, with growing pauses.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import private, processes

LONG_POLL = 30
"""Seconds that the service may hold back its answer."""
_QUICK = 0.1
"""Seconds between looks while the server is starting."""
_STEADY = 5.0
"""Seconds between looks once it is up: a glance at the kernel's table of listeners, no connection."""
_TOLD = 2000
"""Characters that the service takes of each text."""
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
"""Seconds to wait after each failure in a row; the last one goes on."""


class Service:
    """The service's routes for this server."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._base = f"{config['service_url'].rstrip('/')}/api/v1/servers/{config['id']}"
        self._token = (folder / "token").read_text().strip()
        # The environment's proxies are for the user's programs; the service is next door.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, path: str, body: dict[str, object] | None = None, timeout: float = 10.0) -> Any:
        """One request; raises ``OSError`` or ``ValueError`` on anything but a JSON answer or an empty one."""
        request = urllib.request.Request(  # noqa: S310 (the launch names the service; it is not a user's)
            f"{self._base}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                data = answer.read()
        except http.client.HTTPException as error:  # an answer cut short is no OSError of itself
            raise OSError(f"no whole answer: {error!r}") from error
        return json.loads(data) if data else None


class Pauses:
    """Growing pauses, a little different for each agent, so that a service that returns is not stormed."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._failures = 0

    def failed(self) -> None:
        """Wait, or until told to stop."""
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        self._stop.wait(pause * random.uniform(0.8, 1.2))  # noqa: S311 (spreads load, hides nothing)

    def worked(self) -> None:
        """The next failure is a first one again."""
        self._failures = 0


def sshd_answers(port: int) -> bool:
    """Whether sshd greets; a mere connection would also succeed with a broken sshd behind it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def jupyter_answers(url: str) -> bool:
    """Whether Jupyter serves its API (this one needs no token)."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}/api", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # it is up, and keeps even this to itself
    except (OSError, ValueError, http.client.HTTPException):
        return False


def listens(port: int) -> bool:
    """Whether anything listens on a port of this machine: no connection, so nothing in anybody's log."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and fields[1].endswith(wanted):
                return True
    return False


def terminals(marker: str) -> set[str]:
    """The terminals in which something of this server runs: SSH sessions, Jupyter's, tmux within either."""
    found = set()
    for pid, whole in processes.marked(marker).items():
        if whole != marker:
            continue  # of rank 10, where 1 was asked
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            continue
        device = int(text[text.rindex(")") + 2 :].split()[4])
        major, minor = os.major(device), os.minor(device)
        if 136 <= major <= 143:  # the kernel's numbers for /dev/pts
            found.add(f"/dev/pts/{(major - 136) * 256 + minor}")
    return found


def tell(marker: str, text: str) -> int:
    """Write a notice to every terminal of the server; returns how many took it."""
    clean = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    lines = "".join(f"  {line}\r\n" for line in clean.splitlines())
    message = f"\r\n\a\r\n{lines}\r\n".encode()
    told = 0
    for path in sorted(terminals(marker)):
        try:
            # A terminal whose reader hangs must not hold up the others.
            descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            os.write(descriptor, message)
            told += 1
        except OSError:
            pass
        finally:
            os.close(descriptor)
    return told


class Agent:
    """Both loops and what they share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "agent.json").read_text())
        self.service = Service(folder, self.config)
        self.stop = threading.Event()
        self.lost = threading.Event()
        """The service went away: what it was told before, it may have forgotten."""
        self._answered: set[int] = set()

    def look(self) -> tuple[bool | None, bool]:
        """(Jupyter, sshd): whether each answers; Jupyter is ``None`` where there is none.

        Each is spoken to only until it has answered once: a connection costs sshd a process and a line in its
        log, just when Jupyter needs the processor to start.
        """
        url, port = self.config["jupyter_url"], int(self.config["sshd_port"])
        jupyter = self._jupyter(url) if url else None
        return jupyter, self._up(port, lambda: sshd_answers(port))

    def _up(self, port: int, answers: Callable[[], bool]) -> bool:
        if not listens(port):
            self._answered.discard(port)
        elif port not in self._answered and answers():
            self._answered.add(port)
        return port in self._answered

    def _jupyter(self, url: str) -> bool:
        port, noted = urlsplit(url).port or 80, private.answered(self.folder)
        if not noted.exists():
            self._answered.discard(port)  # it was started again
        up = self._up(port, lambda: jupyter_answers(url))
        if up and not noted.exists():
            private.write(noted, "")
        return up

    def report_readiness(self) -> None:
        """Report whenever what answers has changed, until the service has acknowledged it."""
        pauses = Pauses(self.stop)
        acknowledged: tuple[tuple[bool | None, bool], str] | None = None
        told = ""
        starting = True
        quiet_since = time.monotonic()
        while not self.stop.is_set():
            state = self.look()
            up = all(part is not False for part in state)
            notice = self._notice() if state[0] else ""
            if notice and notice != told:
                tell(self.config["marker"], notice)
                told = notice
            if self.lost.is_set():
                self.lost.clear()
                acknowledged = None
            if (state, notice) == acknowledged or (starting and not up and not self._long(quiet_since)):
                self.lost.wait(_STEADY if up else _QUICK if not self._long(quiet_since) else 1.0)
                continue
            body: dict[str, object] = {
                "attempt": self.config["attempt"],
                "rank": self.config["rank"],
                "jupyter": state[0],
                "sshd": state[1],
                "detail": self._detail(state)[:_TOLD],
            }
            if notice:  # a service of an earlier version knows of none
                body["notice"] = notice[:_TOLD]
            try:
                self.service.call("report", body)
            except (OSError, ValueError) as error:
                say(f"the report was not taken, will try again: {error}")
                pauses.failed()
                continue
            pauses.worked()
            acknowledged, starting = (state, notice), False
            quiet_since = time.monotonic()
            say(f"reported: {self._detail(state) or 'all of it answers'}")

    def _notice(self) -> str:
        """What the launcher has for the user to know; empty if nothing."""
        try:
            return private.notice(self.folder).read_text().strip()
        except OSError:
            return ""

    def _long(self, since: float) -> bool:
        """Starting takes so long that it is worth a report of its own, and slower looks."""
        return time.monotonic() - since > 20

    def _detail(self, state: tuple[bool | None, bool]) -> str:
        """Which parts do not answer, and why as far as that is known."""
        ports = (urlsplit(self.config["jupyter_url"] or "").port or 80, int(self.config["sshd_port"]))
        missing = [
            f"{name} ({self._why(name.lower(), port)})"
            for name, part, port in zip(("Jupyter", "sshd"), state, ports, strict=True)
            if part is False
        ]
        return f"no answer from {' and '.join(missing)}" if missing else ""

    def _why(self, name: str, port: int) -> str:
        if listens(port):
            return f"port {port} is open, but what listens there does not answer as it should"
        try:
            return private.trouble(self.folder, name).read_text().strip()
        except OSError:
            return f"nothing listens on port {port} yet"

    def deliver_notices(self) -> None:
        """Wait for notices; keep the banner's end current."""
        pauses = Pauses(self.stop)
        # Kept, so that an agent that was started again repeats nothing.
        kept = self.folder / "notices"
        after = int(kept.read_text()) if kept.exists() else 0
        while not self.stop.is_set():
            asked = time.monotonic()
            try:
                answer = self.service.call(f"notices?after={after}&wait={LONG_POLL}", timeout=LONG_POLL + 15)
                for notice in answer["notices"]:
                    told = tell(self.config["marker"], str(notice["text"]))
                    say(f"told {told} terminals: {notice['text']}")
                    after = max(after, int(notice["seq"]))
                    private.write(kept, f"{after}\n")
                if answer["ends_at"]:
                    self._keep_end(answer["ends_at"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                say(f"no notices, will try again: {type(error).__name__}: {error}")
                self.lost.set()
                pauses.failed()
                continue
            pauses.worked()
            if not answer["notices"] and time.monotonic() - asked < 1:
                self.stop.wait(1)  # an answer that did not wait must not make us spin

    def _keep_end(self, ends_at: str) -> None:
        """Give the banner the end as it is now; time is added by extensions."""
        seconds = int(datetime.fromisoformat(ends_at).timestamp())
        file = self.folder / "ends"
        if file.read_text().strip() != str(seconds):
            private.write(file, f"{seconds}\n")

    def run(self) -> None:
        """For as long as the server lives; the launcher ends it."""
        threading.Thread(target=self.deliver_notices, name="notices", daemon=True).start()
        self.report_readiness()


def say(text: str) -> None:
    """One line for the server's log."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 (the launcher keeps it)


def main(argv: list[str]) -> int:
    """Run for the server whose private folder is the argument."""
    Agent(Path(argv[1])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
