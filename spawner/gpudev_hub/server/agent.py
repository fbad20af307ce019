"""The agent of a server reports when Jupyter and sshd answer, and writes notices to the user's terminals.

``python -I -m gpudev_hub.server.agent FOLDER`` reads ``FOLDER/agent.json`` (written by ``sshd.py``) and the
token in the same folder. One thread watches the ports, another waits for notices. While the service does not
answer, the agent repeats unacknowledged reports, with growing pauses. The answer with the notices also names
the people whose SSH connections must end.
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
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from . import private, processes, sessions

LONG_POLL = 30
"""Seconds of a long poll."""
_QUICK = 0.1
"""Seconds between checks while the server is starting."""
_STEADY = 5.0
"""Seconds between checks once the server is up. They do not connect: they read the kernel's listeners."""
_TOLD = 2000
"""Most characters of a text that the service accepts."""
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
"""Seconds to wait after each failure in a row; the last value repeats."""
# The proxies in the environment are for the user's programs.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service:
    """The routes of the service for this server."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._base = f"{config['service_url'].rstrip('/')}/api/v1/servers/{config['id']}"
        self._token = (folder / "token").read_text().strip()

    def call(self, path: str, body: dict[str, object] | None = None, timeout: float = 10.0) -> Any:
        """Send one request. Raises ``OSError`` or ``ValueError`` if the answer is neither JSON nor empty."""
        data = self.read(path, body, timeout)
        return json.loads(data) if data else None

    def read(self, path: str, body: dict[str, object] | None = None, timeout: float = 10.0) -> bytes:
        """Send one request and return the body of the answer. Raises ``OSError``."""
        request = urllib.request.Request(  # noqa: S310 (the address comes from the launch, not from a user)
            f"{self._base}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with _OPENER.open(request, timeout=timeout) as answer:
                return bytes(answer.read())
        except http.client.HTTPException as error:  # an incomplete answer is not an OSError
            raise OSError(f"incomplete answer: {error!r}") from error


def pauses() -> Iterator[float]:
    """Yield the seconds to wait after each failure, with jitter so that agents do not retry all at once."""
    for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
        yield pause * random.uniform(0.8, 1.2)  # noqa: S311 (jitter, not a secret)


def sshd_answers(port: int) -> bool:
    """Return whether sshd sends its banner. A broken sshd may still accept connections."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def jupyter_answers(url: str) -> bool:
    """Return whether Jupyter answers on an API route that needs no token."""
    try:
        with _OPENER.open(f"{url.rstrip('/')}/api", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # Jupyter is up, but this route needs a token, too
    except (OSError, ValueError, http.client.HTTPException):
        return False


def listens(port: int) -> bool:
    """Return whether a process listens on a port of this machine. Does not connect to the port."""
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
    """Return the terminals of processes of this server: SSH sessions, Jupyter terminals, and tmux in them."""
    found = set()
    for pid in processes.marked(marker):
        fields = processes.stat(pid)
        if fields is None:
            continue
        device = int(fields[4])
        major, minor = os.major(device), os.minor(device)
        if 136 <= major <= 143:  # the kernel's numbers for /dev/pts
            found.add(f"/dev/pts/{(major - 136) * 256 + minor}")
    return found


def tell(marker: str, text: str) -> int:
    """Write a notice to every terminal of the server. Returns the number of terminals."""
    clean = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    lines = "".join(f"  {line}\r\n" for line in clean.splitlines())
    message = f"\r\n\a\r\n{lines}\r\n".encode()
    told = 0
    for path in sorted(terminals(marker)):
        try:
            # A terminal without a reader must not block the others.
            descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            continue
        with suppress(OSError):
            os.write(descriptor, message)
            told += 1
        os.close(descriptor)
    return told


def _text(file: Path, otherwise: str = "") -> str:
    """Return the content of a file of the launcher, or ``otherwise`` if the file does not exist."""
    try:
        return file.read_text().strip()
    except OSError:
        return otherwise


class Agent:
    """The two loops of the agent and their shared state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "agent.json").read_text())
        self.service = Service(folder, self.config)
        self.stop = threading.Event()
        self.lost = threading.Event()
        """The service did not answer, so it may have lost the last report."""
        self.closed_to: dict[str, int] = {}
        """Hub users who lost access to JupyterLab here, each with the sequence number of the latest loss."""
        self._answered: set[int] = set()

    def look(self) -> tuple[bool | None, bool]:
        """Return whether (Jupyter, sshd) answer. Jupyter is ``None`` on ranks without it.

        It connects only until the first answer: each connection costs sshd a process and a log line, and
        Jupyter needs the processor to start.
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
        port, noted = urlsplit(url).port or 80, self.folder / private.ANSWERED
        if not noted.exists():
            self._answered.discard(port)  # the part was restarted
        up = self._up(port, lambda: jupyter_answers(url))
        if up and not noted.exists():
            private.write(noted, "")
        return up

    def report_readiness(self) -> None:
        """Report when a part starts or stops answering, and retry until the service has acknowledged it."""
        troubles = pauses()
        acknowledged: tuple[tuple[bool | None, bool], str] | None = None
        told = ""
        starting = True
        quiet_since = time.monotonic()
        while not self.stop.is_set():
            state = self.look()
            up = all(part is not False for part in state)
            notice = _text(self.folder / private.NOTICE) if state[0] else ""
            if notice and notice != told:
                tell(self.config["marker"], notice)
                told = notice
            if self.lost.is_set():
                self.lost.clear()
                acknowledged = None
            # Report a start that takes this long, and check less often.
            late = time.monotonic() - quiet_since > 20
            if (state, notice) == acknowledged or (starting and not up and not late):
                self.lost.wait(_STEADY if up else 1.0 if late else _QUICK)
                continue
            body: dict[str, object] = {
                "attempt": self.config["attempt"],
                "rank": self.config["rank"],
                "jupyter": state[0],
                "sshd": state[1],
                "detail": self._detail(state)[:_TOLD],
            }
            if notice:  # an older service does not accept this field
                body["notice"] = notice[:_TOLD]
            try:
                self.service.call("report", body)
            except (OSError, ValueError) as error:
                say(f"the report failed, will retry: {error}")
                self.stop.wait(next(troubles))
                continue
            troubles = pauses()
            acknowledged, starting = (state, notice), False
            quiet_since = time.monotonic()
            say(f"reported: {self._detail(state) or 'all parts answer'}")

    def _detail(self, state: tuple[bool | None, bool]) -> str:
        ports = (urlsplit(self.config["jupyter_url"] or "").port or 80, int(self.config["sshd_port"]))
        missing = [
            f"{name} ({self._why(name.lower(), port)})"
            for name, part, port in zip(("Jupyter", "sshd"), state, ports, strict=True)
            if part is False
        ]
        return f"no answer from {' and '.join(missing)}" if missing else ""

    def _why(self, name: str, port: int) -> str:
        if listens(port):
            return f"port {port} is open, but the process there does not answer correctly"
        return _text(private.trouble(self.folder, name), f"nothing listens on port {port} yet")

    def deliver_notices(self) -> None:
        """Wait for notices, show them, and keep the end time of the banner up to date."""
        troubles = pauses()
        # Kept on disk, so that a restarted agent does not repeat notices.
        kept = self.folder / "notices"
        after = int(kept.read_text()) if kept.exists() else 0
        cut_after = 0  # a new agent checks all connections
        while not self.stop.is_set():
            asked = time.monotonic()
            try:
                query = f"after={after}&cut_after={cut_after}&wait={LONG_POLL}"
                answer = self.service.call(f"notices?{query}", timeout=LONG_POLL + 15)
                self._cut(answer)
                cut_after = int(answer["cut_after"])
                for notice in answer["notices"]:
                    told = tell(self.config["marker"], str(notice["text"]))
                    say(f"notice to {told} terminals: {notice['text']}")
                    after = max(after, int(notice["seq"]))
                    private.write(kept, f"{after}\n")
                if answer["ends_at"]:
                    self._keep_end(answer["ends_at"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                say(f"no notices received, will retry: {type(error).__name__}: {error}")
                self.lost.set()
                self.stop.wait(next(troubles))
                continue
            troubles = pauses()
            if not (answer["notices"] or answer["cut"] or answer["check"]) and time.monotonic() - asked < 1:
                self.stop.wait(1)  # avoid a busy loop if the service answers at once

    def _cut(self, answer: dict[str, Any]) -> None:
        """End the connections of people who lost access. Raises ``OSError`` if one cannot be checked."""
        for session in sessions.living(self.folder):
            lost = any(session.of(cut["subject"], cut["fingerprints"]) for cut in answer["cut"])
            if not lost and answer["check"]:
                allowed = self.service.read(f"keys?fingerprint={quote(session.fingerprint, safe='')}")
                lost = not sessions.lets_in(allowed, session)
            if lost and sessions.end(session):
                who = session.subject or session.fingerprint
                say(f"ended the SSH connection of {who}, who has no access any more")
        if answer["cut"] or answer["check"]:
            number, hub_user = int(answer["cut_after"]), "hub:"
            for cut in answer["cut"]:
                if cut["subject"].startswith(hub_user):
                    self.closed_to[cut["subject"].removeprefix(hub_user)] = number
            private.write(self.folder / private.CUT, json.dumps({"number": number, "users": self.closed_to}))

    def _keep_end(self, ends_at: str) -> None:
        """Write the current end time for the banner, because extensions change it."""
        seconds = int(datetime.fromisoformat(ends_at).timestamp())
        file = self.folder / "ends"
        if file.read_text().strip() != str(seconds):
            private.write(file, f"{seconds}\n")

    def run(self) -> None:
        threading.Thread(target=self.deliver_notices, name="notices", daemon=True).start()
        self.report_readiness()


def say(text: str) -> None:
    """Write a line to the log of the server."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 (the launcher logs standard output)


def main(argv: list[str]) -> int:
    """Run the agent for the server with the given private folder."""
    Agent(Path(argv[1])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
