"""JupyterLab of a server: started with the user's configuration, and without it if that configuration fails.

No file in a home may prevent the start of a server, or end it with its sessions and jobs. If JupyterLab ends,
it is restarted, and the other parts keep running. If it ends or never answers with the user's configuration,
it is restarted without that configuration; the next start reads changed files. Only two events end the
server: JupyterLab was asked to shut down, or it fails without the user's files before it ever answered.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import shells
from .logs import printable
from .record import Exit

PATIENCE = 40.0
"""Seconds within which JupyterLab must answer if the user has a configuration."""
BRIEF = 60.0
"""If JupyterLab ends twice in a row within these seconds, it is restarted without the configuration."""
PID = "jupyterlab.pid"
"""File in the runtime folder with the pid of JupyterLab, so that the user can restart JupyterLab alone."""
FOLDER = "GPUDEV_SERVER_FOLDER"
"""Environment variable that tells JupyterLab the private folder of its server."""

_ASKED = "Shutting down on /api/shutdown request."
_HUB_AWAY = "Failed to connect to my Hub"
_FILES = ("jupyter*_config.py", "jupyter*_config.json", "jupyter*_config.d/*.json")
_NAMED = 3
"""Maximum number of files that a notice names."""
_READ = 1 << 16
_SHOWN = 300
_PREFIX = re.compile(r"^\[[A-Z] [-0-9: .]+ [^\]]+\] ")
_QUOTED = re.compile(r"(?<=['\"])[^'\"\s]{3,}(?=['\"])")
_CHATTER = re.compile(r"\[[DIW] ")
_COMPLAINT = re.compile(r"^\[C |\bBad config\b|^\w*(\.\w+)*(Error|Exception|Exit)\b")

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """How JupyterLab ended."""

    code: int
    """Exit code; a negative value is a signal."""
    said: str
    """The end of its output."""
    answered: bool
    """Whether it answered before it ended."""
    lived: float
    """Seconds since it was started."""
    hung: bool = False
    """Whether it was killed because it did not answer."""


class Lab:
    """Decides whether the next start of JupyterLab uses the user's configuration."""

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self._home = home
        self._folders = [Path(env.get("JUPYTER_CONFIG_DIR") or home / ".jupyter"), home]
        self.plain = False
        """Whether JupyterLab runs, or starts next, without the user's configuration."""
        self.notice = ""
        """Notice for the user, or an empty string."""
        self.worked = False
        """Whether JupyterLab has ever answered."""
        self._brief = 0
        self._refused: Fingerprint = ()

    def configuration(self) -> list[Path]:
        found = []
        for folder in self._folders:
            for pattern in _FILES:
                try:
                    found += sorted(path for path in folder.glob(pattern) if path.is_file())
                except OSError:
                    continue
        return found

    def patience(self) -> float | None:
        """Return how many seconds to wait for an answer; ``None`` means no limit."""
        return PATIENCE if not self.plain and self.configuration() else None

    def ended(self, ending: Ending) -> Exit | None:
        """Return how the server ends, or ``None`` if JupyterLab must be restarted (``plain`` says how)."""
        if ending.code == 0 and _ASKED in ending.said:
            return Exit(0, "JupyterLab was shut down from inside", by_user=True)
        self.worked |= ending.answered
        self._brief = self._brief + 1 if ending.lived < BRIEF else 0
        if self.plain:
            if not self.worked:
                return Exit(ending.code or 1, f"JupyterLab {what(ending)}")
            # If JupyterLab also fails without the files, the files are not the cause.
            if not ending.answered or self._fingerprint() != self._refused:
                self.plain, self.notice = False, ""
        elif _HUB_AWAY not in ending.said and (not ending.answered or self._brief > 1):
            self._refuse(ending)
        return None

    def _refuse(self, ending: Ending) -> None:
        self.plain, self._refused = True, self._fingerprint()
        files = blamed(self.configuration(), ending.said, self._home)
        names = ", ".join(self._shown(path) for path in files[:_NAMED])
        if len(files) > _NAMED:
            names += f" or {len(files) - _NAMED} more files"
        names = names or "the files in ~/.jupyter and ~/.local/share/jupyter"
        self.notice = (
            f"JupyterLab runs without your configuration: with {names} it {what(ending)}."
            f" Fix the configuration, then restart JupyterLab with: kill $(cat $JUPYTER_RUNTIME_DIR/{PID})"
        )

    def _fingerprint(self) -> Fingerprint:
        found = []
        for path in self.configuration():
            try:
                about = path.stat()
            except OSError:
                continue
            found.append((str(path), about.st_mtime_ns, about.st_size))
        return tuple(found)

    def _shown(self, path: Path) -> str:
        return f"~/{path.relative_to(self._home)}" if path.is_relative_to(self._home) else str(path)


_QUIET: Final = {"loggers": {"tornado.application": {"level": "WARNING"}}}


def command(jupyter: Sequence[str], env: Mapping[str, str], grace: float, plain: Path | None) -> list[str]:
    """Return the command line of JupyterLab. ``plain`` is a folder that replaces the user's configuration."""
    terminal = shells.interactive(env)
    arguments = [
        # The image determines the version, so JupyterLab need not check for updates or ask about news.
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
        # Jupyter stops its kernels itself; by default it kills them after five seconds.
        f"--KernelManager.shutdown_wait_time={0.9 * grace:g}",
        # The reservation determines when the server ends.
        "--ServerApp.shutdown_no_activity_timeout=0",
        # Seconds until JupyterLab asks the Hub again whether a person has access.
        "--HubOAuth.cache_max_age=30",
        # At this level, JupyterLab logs a request to shut down.
        "--ServerApp.log_level=INFO",
        # At INFO, JupyterHub's code writes the browser's session id into the server's log.
        f"--ServerApp.logging_config={_QUIET}",
    ]
    if plain is not None:
        arguments.append(f"--ServerApp.root_dir={env['HOME']}")
        lost = [f"--unset={name}" for name in _folders(plain) if name not in env]
        back = [f"{name}={env[name]}" for name in _folders(plain) if name in env]
        terminal = ["/usr/bin/env", *lost, f"--chdir={env['HOME']}", *back, *terminal]
    # A list, because traitlets removes the quotes of a string.
    return [*jupyter, f"--ServerApp.terminado_settings=shell_command={terminal}", *arguments]


def environment(env: Mapping[str, str], folder: Path, plain: Path | None) -> dict[str, str]:
    """Return the environment of JupyterLab. ``folder``, for its extension, is the server's private folder."""
    return {**env, FOLDER: str(folder), **(_folders(plain) if plain is not None else {})}


def _folders(plain: Path) -> dict[str, str]:
    return {"JUPYTER_CONFIG_DIR": str(plain / "config"), "JUPYTER_DATA_DIR": str(plain / "data")}


def what(ending: Ending) -> str:
    """Return a phrase that says how JupyterLab ended, with the last message of its output."""
    if ending.hung:
        return f"did not answer within {PATIENCE:g} s"
    if ending.code < 0:
        how = f"was killed by {signal.Signals(-ending.code).name}"
    else:
        how = f"ended with exit code {ending.code}"
    last = complaint(ending.said)
    return f"{how}: {last}" if last else how


def complaint(said: str) -> str:
    """Return the output line that best explains the end, as printable text; or an empty string."""
    lines = [text for line in said.splitlines() if (text := printable(line))]
    telling = [line for line in lines if _COMPLAINT.search(line)]
    telling = telling or [line for line in lines if not _CHATTER.match(line)]
    return _PREFIX.sub("", telling[-1])[:_SHOWN].rstrip(".") if telling else ""


def blamed(files: Sequence[Path], said: str, home: Path) -> list[Path]:
    """Return the files that the output points to, or all of ``files`` if there are none.

    The output may name one of the files, quote a word in it, or name another file in the home.
    """
    named = [path for path in files if str(path) in said]
    if named:
        return named
    words = _QUOTED.findall(complaint(said))
    quoted = [path for path in files if any(word in _text(path) for word in words)]
    others = [Path(word) for word in words if word.startswith(f"{home}/")]
    return quoted or others or list(files)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_READ).decode(errors="replace")
    except OSError:
        return ""
