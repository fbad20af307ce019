"""``gpu-dev`` on a real terminal, and without one: the live line, Ctrl-C, plain lines, quick starts."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from live_service import LiveService

GPU_DEV = Path(sys.executable).with_name("gpu-dev")


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *args: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 100))
        self.text = ""
        self.process = subprocess.Popen(
            [GPU_DEV, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            # This terminal controls it, in a session of its own: Ctrl-C reaches it as it does a user's.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
            env=os.environ | {"TERM": "xterm-256color"},
        )
        os.close(slave)
        os.set_blocking(self.master, False)

    def _read(self) -> None:
        try:
            self.text += os.read(self.master, 65536).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            pass  # the other side has closed

    def expect(self, pattern: str) -> None:
        until = time.monotonic() + 20
        while not re.search(pattern, self.text):
            assert time.monotonic() < until, f"{pattern!r} is not in {self.text!r}"
            self._read()

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def exit_code(self) -> int:
        until = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < until, self.text
            self._read()
        self._read()
        return self.process.returncode


@contextmanager
def terminal(*args: str) -> Iterator[Terminal]:
    opened = Terminal(*args)
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            opened.process.kill()
            opened.process.wait()
        os.close(opened.master)


def soon(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def service(configured: LiveService) -> LiveService:
    configured.fill()
    return configured


def test_the_line_lives_until_it_is_ready(service: LiveService) -> None:
    with terminal("reserve", "-g", "2", "-n", "demo") as shown:
        shown.expect("next in the queue")
        service.change(service.only.id, position=7)
        shown.expect("place 7 in the queue")
        service.make_ready(service.only.id)
        assert shown.exit_code() == 0
        assert "ssh gpu-demo" in shown.text


@pytest.mark.parametrize(("answer", "state"), [("\r", "queued"), ("y\r", "queued"), ("n\r", "ended")])
def test_ctrl_c_asks_whether_to_keep_the_place(service: LiveService, answer: str, state: str) -> None:
    with terminal("reserve", "-n", "demo") as shown:
        shown.expect("next in the queue")
        shown.type("\x03")
        shown.expect("Keep the reservation demo?")
        shown.type(answer)
        assert shown.exit_code() == 130
    assert service.only.state == state


def test_a_second_ctrl_c_keeps_it(service: LiveService) -> None:
    with terminal("reserve", "-n", "demo") as shown:
        shown.expect("next in the queue")
        shown.type("\x03")
        shown.expect("Keep the reservation demo?")
        shown.type("\x03")
        shown.expect("demo is kept. It is queued.")
        assert shown.exit_code() == 130
    assert service.only.state == "queued"


def test_a_running_server_is_not_released_without_a_question(service: LiveService) -> None:
    service.make_way()
    assert (
        subprocess.run([GPU_DEV, "reserve", "-n", "demo"], capture_output=True, check=False).returncode == 0
    )
    with terminal("cancel", "demo") as shown:
        shown.expect("Release it")
        shown.type("perhaps\r")
        shown.expect("'perhaps' is neither yes nor no. Answer y or n.")
        shown.type("\r")
        assert shown.exit_code() == 0
    asked = service.only.state
    with terminal("cancel", "--yes", "demo") as shown:
        assert shown.exit_code() == 0
    assert (asked, service.only.state) == ("ready", "ended")


def test_watch_follows_and_ends_with_ctrl_c(service: LiveService) -> None:
    subprocess.run([GPU_DEV, "reserve", "-n", "demo", "--no-wait"], capture_output=True, check=True)
    with terminal("list", "--watch") as shown:
        shown.expect("next in the queue")
        service.change(service.only.id, position=7)
        shown.expect("place 7 in the queue")
        shown.type("\x03")
        assert shown.exit_code() == 0


def test_without_a_terminal_ctrl_c_keeps_the_place(service: LiveService) -> None:
    process = subprocess.Popen(
        [GPU_DEV, "reserve", "-n", "demo", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        soon(lambda: service.count("GET", "version="))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert "demo is kept. It is queued." in err
    assert service.only.state == "queued"


def test_without_a_terminal_there_are_plain_lines(service: LiveService) -> None:
    process = subprocess.Popen(
        [GPU_DEV, "reserve", "-n", "demo", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        soon(lambda: service.count("GET", "version="))
        service.make_ready(service.only.id)
        out, err = process.communicate(timeout=20)
    assert json.loads(out)["state"] == "ready"
    lines = err.splitlines()
    assert len(lines) == 2
    assert "next in the queue" in lines[0]
    assert "ready" in lines[1]
    assert "\x1b" not in err


def test_help_loads_little() -> None:
    """By modules, which is exact; how long it takes is in the benchmarks."""
    code = (
        "import sys; sys.argv = ['gpu-dev', '--help']\n"
        "from gpudev.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"httpx", "rich", "ipywidgets", "IPython", "asyncio", "ssl"} & set(eval(done.stderr))
