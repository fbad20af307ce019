"""JupyterLab of a server: started with its user's configuration, and without it where that ends it.

Nothing in a home may end a server, its sessions and jobs, or keep it from starting. JupyterLab that ends is
started again beside them, whatever the cause. If it ended, or never answered, with its user's configuration,
it is started without that; once the files have changed they count again at its next start. Only two things
end the server: JupyterLab was asked to shut down, or it fails without the user's files before it ever worked.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import shells
from .record import Exit

PATIENCE = 40.0
"""Seconds to answer in with a configuration of the user's."""
BRIEF = 60.0
"""Seconds; a JupyterLab that ends sooner, twice in a row, is not started the same way again."""
PID = "jupyterlab.pid"
"""In the runtime folder, for its user to end JupyterLab alone."""

_ASKED = "Shutting down on /api/shutdown request."
_HUB_AWAY = "Failed to connect to my Hub"
_FILES = ("jupyter*_config.py", "jupyter*_config.json", "jupyter*_config.d/*.json")
_NAMED = 3
"""At most so many files are named where any may be at fault."""
_READ = 1 << 16
_SHOWN = 300
_PREFIX = re.compile(r"^\[[A-Z] [-0-9: .]+ [^\]]+\] ")
_QUOTED = re.compile(r"(?<=['\"])[^'\"\s]{3,}(?=['\"])")
_CHATTER = re.compile(r"\[[DIW] ")
_COMPLAINT = re.compile(r"^\[C |\bBad config\b|^\w*(\.\w+)*(Error|Exception|Exit)\b")

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a JupyterLab ended."""

    code: int
    """Exit code; negative: a signal."""
    said: str
    """The end of its output."""
    answered: bool
    """Whether it had answered before."""
    lived: float
    """Seconds since its start."""
    hung: bool = False
    """It was killed because it did not answer."""


class Lab:
    """Decides how JupyterLab is started next."""

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self._home = home
        self._folders = [Path(env.get("JUPYTER_CONFIG_DIR") or home / ".jupyter"), home]
        self.plain = False
        """Whether it runs, or is to be started, without the user's configuration."""
        self.notice = ""
        """What its user should know of that; empty if nothing."""
        self.worked = False
        """Whether it has ever answered."""
        self._brief = 0
        self._refused: Fingerprint = ()

    def configuration(self) -> list[Path]:
        """The user's own configuration files."""
        found = []
        for folder in self._folders:
            for pattern in _FILES:
                try:
                    found += sorted(path for path in folder.glob(pattern) if path.is_file())
                except OSError:
                    continue
        return found

    def patience(self) -> float | None:
        """Seconds to wait for an answer; ``None``: as long as it takes."""
        return PATIENCE if not self.plain and self.configuration() else None

    def ended(self, ending: Ending) -> Exit | None:
        """Decide what comes next: the end of the server, or ``None`` and another start as ``plain`` says."""
        if ending.code == 0 and _ASKED in ending.said:
            return Exit(0, "JupyterLab was shut down from inside", by_user=True)
        self.worked |= ending.answered
        self._brief = self._brief + 1 if ending.lived < BRIEF else 0
        if self.plain:
            if not self.worked:
                return Exit(ending.code or 1, f"JupyterLab {what(ending)}")
            # One that fails without the files, too, says nothing against them.
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
            f" Correct that, then restart JupyterLab with: kill $(cat $JUPYTER_RUNTIME_DIR/{PID})"
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


def command(jupyter: Sequence[str], env: Mapping[str, str], grace: float, plain: Path | None) -> list[str]:
    """Command line of JupyterLab; ``plain``: a folder for it where it is to read nothing of the user's."""
    terminal = shells.interactive(env)
    arguments = [
        # The image says which version there is; a server has no need to ask other sites at its start, nor
        # its user whether they want their news.
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
        # Jupyter ends its kernels itself, and by default kills them after five seconds.
        f"--KernelManager.shutdown_wait_time={0.9 * grace:g}",
        # When a server ends is the reservation's business.
        "--ServerApp.shutdown_no_activity_timeout=0",
        # At this level it says that it was asked to shut down.
        "--ServerApp.log_level=INFO",
    ]
    if plain is not None:
        arguments.append(f"--ServerApp.root_dir={env['HOME']}")
        lost = [f"--unset={name}" for name in _folders(plain) if name not in env]
        back = [f"{name}={env[name]}" for name in _folders(plain) if name in env]
        terminal = ["/usr/bin/env", *lost, f"--chdir={env['HOME']}", *back, *terminal]
    # A list: traitlets takes the quotes off a string.
    return [*jupyter, f"--ServerApp.terminado_settings=shell_command={terminal}", *arguments]


def environment(env: Mapping[str, str], plain: Path | None) -> dict[str, str]:
    """Environment of JupyterLab."""
    return {**env, **(_folders(plain) if plain is not None else {})}


def _folders(plain: Path) -> dict[str, str]:
    return {"JUPYTER_CONFIG_DIR": str(plain / "config"), "JUPYTER_DATA_DIR": str(plain / "data")}


def what(ending: Ending) -> str:
    """What became of it, and its own words about that."""
    if ending.hung:
        return f"did not answer within {PATIENCE:g} s"
    if ending.code < 0:
        how = f"was ended by {signal.Signals(-ending.code).name}"
    else:
        how = f"ended with exit code {ending.code}"
    last = complaint(ending.said)
    return f"{how}: {last}" if last else how


def complaint(said: str) -> str:
    """The line of its output that says most about its end, fit to be shown; empty if there is none."""
    lines = [
        text
        for line in said.splitlines()
        if (text := "".join(letter for letter in line if letter.isprintable()).strip())
    ]
    telling = [line for line in lines if _COMPLAINT.search(line)]
    telling = telling or [line for line in lines if not _CHATTER.match(line)]
    return _PREFIX.sub("", telling[-1])[:_SHOWN].rstrip(".") if telling else ""


def blamed(files: Sequence[Path], said: str, home: Path) -> list[Path]:
    """The files that the output points to; all of ``files`` if it does not.

    It names one of them, or quotes a word of one; or it names another file of the home.
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
