"""The shells of a server: each finds the server's programs, and a broken start file does not prevent a login.

Commands over SSH read no start file of the user, so that such files cannot add to their output. Interactive
shells read what a login shell reads on Debian. ``/etc/profile`` resets ``PATH``, and start files may add
folders at its front. So afterwards the server's folders are put at the front again. Three mechanisms together
reach all shells:

- ``SHELL`` is a wrapper that gives Bash a start file (SSH sessions, terminals of JupyterLab, panes of
  terminal multiplexers, and other programs that start ``$SHELL``);
- ``BASH_ENV`` corrects login shells of Bash that run a command (``bash -lc``);
- ``profile`` is read at the end of ``/etc/profile``, by all login shells, even in an empty environment. In
  images, ``/etc/profile.d`` reads it; on one machine, this needs root (``isolation.overlay``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from . import private

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_THE_SESSION = {"TERM", "PWD", "OLDPWD", "SHLVL", "_", "MAIL", "DISPLAY", "XAUTHORITY"}
"""Variables that sshd sets for each session, or that would be wrong in another session."""
_NO_START_FILES = {"zsh": ["-f"], "fish": ["--no-config"], "csh": ["-f"], "tcsh": ["-f"]}
"""Options for shells that would read the user's files even for a command."""
_LOGIN = {"zsh": ["-l"], "fish": ["-l"]}
"""Options for an interactive shell. Other shells are not login shells, because that would reset ``PATH``."""

_IN_FRONT = """\
case $PATH in
    "$gpudev_path" | "$gpudev_path":*) ;;
    *) PATH=$gpudev_path:${PATH%":$gpudev_path"} ;;
esac
unset gpudev_path
"""

_WRAPPER = """\
#!/bin/sh
# Bash with the server's start file, which does what a login shell does.
case ${{1-}} in
    -l | --login) [ $# -gt 1 ] || shift ;;
    -il* | -li*)
        gpudev_flags=-i${{1#???}}
        shift
        set -- "$gpudev_flags" "$@"
        unset gpudev_flags
        ;;
esac
exec {program} --rcfile {bashrc} "$@"
"""

_BASHRC = """\
# Read what a login shell reads, but keep the server's folders at the front of PATH.
gpudev_path=$PATH
case :$PATH: in
    *:{first}:*) ;;
    *) gpudev_path={path} ;;
esac
[ -r /etc/profile ] && . /etc/profile
PATH=$gpudev_path
if [ -r ~/.bash_profile ]; then
    . ~/.bash_profile
elif [ -r ~/.bash_login ]; then
    . ~/.bash_login
elif [ -r ~/.profile ]; then
    . ~/.profile
elif [ -r ~/.bashrc ]; then
    . ~/.bashrc
fi
"""

_BASH_ENV = """\
# Every Bash script reads this file, but only login shells need the correction.
if shopt -q login_shell; then
    gpudev_path={path}
"""


def prepare(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Write the start files of the shells into the private folder; return their environment.

    ``env`` must have ``HOME`` and ``PATH``.
    """
    result = dict(env)
    path = shlex.quote(env["PATH"])
    before = env.get("BASH_ENV", "")
    chained = f". {shlex.quote(before)}\n" if before and not _in_home(before, env["HOME"]) else ""
    corrected = "".join(f"    {line}\n" for line in _IN_FRONT.splitlines())
    private.write(folder / "bash_env", f"{_BASH_ENV.format(path=path)}{corrected}fi\n{chained}")
    result["BASH_ENV"] = str(folder / "bash_env")
    program = env.get("SHELL") or "/bin/bash"
    if Path(program).name == "bash":
        first = shlex.quote(env["PATH"].split(":")[0])
        private.write(folder / "bashrc", _BASHRC.format(first=first, path=path) + _IN_FRONT)
        (folder / "shells").mkdir(mode=0o700, exist_ok=True)
        wrapper = folder / "shells" / "bash"
        bashrc = shlex.quote(str(folder / "bashrc"))
        private.write(wrapper, _WRAPPER.format(program=shlex.quote(program), bashrc=bashrc), 0o700)
        result["SHELL"] = str(wrapper)
    private.write(folder / "profile", _profile(result))
    return result


def interactive(env: Mapping[str, str]) -> list[str]:
    """Return the command line of an interactive shell, for SSH and terminals of Jupyter."""
    program = env.get("SHELL") or "/bin/bash"
    return [program, *_LOGIN.get(Path(program).name, [])]


def quiet(env: Mapping[str, str]) -> list[str]:
    """Return the command line of a shell without start files; ``-c`` and a command may follow."""
    program = env.get("SHELL") or "/bin/bash"
    return [program, *_NO_START_FILES.get(Path(program).name, [])]


def assignments(env: Mapping[str, str]) -> str:
    """Return ``env`` as shell assignments, without the variables that sshd sets for each session."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in _lasting(env).items())


def _lasting(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if _NAME.fullmatch(name) and name not in _OF_THE_SESSION and not name.startswith("SSH_")
    }


def _profile(env: Mapping[str, str]) -> str:
    """Return a script for any POSIX shell that restores ``PATH`` and adds missing variables."""
    missing = [
        f'[ -n "${{{name}+x}}" ] || export {name}={shlex.quote(value)}\n'
        for name, value in _lasting(env).items()
        if name != "PATH"
    ]
    return f"{''.join(missing)}export PATH={shlex.quote(env['PATH'])}\n"


def _in_home(path: str, home: str) -> bool:
    """Return whether a start file is in the home. Commands do not read such files."""
    return path.startswith(("~", "$HOME", "${HOME}", f"{home.rstrip('/')}/"))
