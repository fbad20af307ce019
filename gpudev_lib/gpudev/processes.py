"""Local programs: how they are started, and how their output is passed on."""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, NoReturn, TextIO

from gpudev.errors import GpuDevError

LAST_WORDS = 2.0
"""Seconds to wait for the last output of a program after its end."""


def start(
    argv: Sequence[str], *, stdin: int | IO[bytes], stdout: int, stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a program.

    Raises `GpuDevError` if it is not installed, or if its exit status would be lost.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # The kernel would discard exit statuses: Popen would report 0, and programs of ssh would fail.
        raise GpuDevError(
            f"{argv[0]} was not started: your program ignores SIGCHLD, so exit statuses would be lost.",
            hint="Call this first: signal.signal(signal.SIGCHLD, signal.SIG_DFL)",
            code="sigchld_ignored",
        )
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=environment())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_installed(argv[0]) from error


def replace(argv: list[str]) -> NoReturn:
    """Replace this process by a program. Raises `GpuDevError` if it is not installed."""
    try:
        os.execvpe(argv[0], argv, environment())  # noqa: S606
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_installed(argv[0]) from error


def environment() -> dict[str, str]:
    """Return the environment for a program that gpu-dev starts.

    ssh runs the commands in its configuration with ``SHELL``, which may not exist in a container.
    """
    return {**os.environ, "SHELL": "/bin/sh"}


def _not_installed(program: str) -> GpuDevError:
    return GpuDevError(
        f"{program} is not installed on this machine.",
        hint=f"Install {program}, then try again.",
        code="not_installed",
    )


class Command:
    """A running program with an input text, whose output goes to two streams."""

    def __init__(self, argv: Sequence[str], input: str | None, targets: Sequence[TextIO | None]) -> None:
        """`targets`: streams for standard output and standard error; None discards the output."""
        piped = subprocess.PIPE
        self._process = start(
            argv, stdin=subprocess.DEVNULL if input is None else piped, stdout=piped, stderr=piped
        )
        self._failure: Exception | None = None
        self._work = [
            threading.Thread(target=self._pump, args=(source, target), daemon=True)
            for source, target in zip((self._process.stdout, self._process.stderr), targets, strict=True)
        ]
        if input is not None:
            self._work.append(threading.Thread(target=self._feed, args=(input.encode(),), daemon=True))
        for thread in self._work:
            thread.start()

    def wait(self, timeout: float | None) -> int:
        """Return the exit status after all output has been passed on.

        Raises `subprocess.TimeoutExpired`, or the error of a target stream.
        """
        code = self._process.wait(timeout)
        for thread in self._work:
            thread.join()
        if self._failure is not None:
            raise self._failure
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._work:
            thread.join(LAST_WORDS)

    def _feed(self, data: bytes) -> None:
        assert self._process.stdin is not None
        # If it ended without reading its input, its status says why.
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(data)

    def _pump(self, source: IO[bytes], target: TextIO | None) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with source:
            try:
                while chunk := source.read1(65536):  # type: ignore[attr-defined]
                    _write(target, decoder.decode(chunk))
                _write(target, decoder.decode(b"", True))
            except (OSError, ValueError) as error:
                # As with a closed pipe: without a reader for its output, the program is stopped.
                self._failure = error
                self._process.kill()


def _write(target: TextIO | None, text: str) -> None:
    if target is None:
        return
    try:
        target.write(text)
    except UnicodeEncodeError:
        encoding = target.encoding or "ascii"
        target.write(text.encode(encoding, "replace").decode(encoding))
    target.flush()
