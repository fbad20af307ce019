"""The shells of a server: every kind of them finds the server's programs, and none can lock its user out.

Commands over SSH read no start file of the user's: their output is the command's alone, and a broken file
keeps nobody out. Interactive shells read all that a login shell reads on a Debian machine. ``/etc/profile``
sets ``PATH`` anew, and start files may put other programs in front: afterwards what the server's programs are
found by is in front again. There are three ways to that, since no one of them reaches all shells:

- ``SHELL`` is a wrapper that gives Bash our start file (sessions over SSH, terminals of JupyterLab, panes of
  terminal multiplexers, whatever else starts ``$SHELL``);
- ``BASH_ENV`` corrects login shells of Bash that run a command (``bash -lc``);
- ``profile`` is for the end of ``/etc/profile``: for all login shells, even in an empty environment. In
  images ``/etc/profile.d`` reads it; on one machine that takes root (``isolation.overlay``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from . import private

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_THE_SESSION = {"TERM", "PWD", "OLDPWD", "SHLVL", "_", "MAIL", "DISPLAY", "XAUTHORITY"}
"""Set by sshd for each session, or wrong in another one."""
_NO_START_FILES = {"zsh": ["-f"], "fish": ["--no-config"], "csh": ["-f"], "tcsh": ["-f"]}
"""Options for a command's shell, where it would read the user's files even for a command."""
_LOGIN = {"zsh": ["-l"], "fish": ["-l"]}
"""Options for an interactive shell. Others stay no login shells: ``/etc/profile`` would reset ``PATH``."""

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
# What a login shell reads; but what the server's programs are found by stays in front.
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
# Every script in Bash reads this; only the files of login shells hide the server's programs.
if shopt -q login_shell; then
    gpudev_path={path}
"""


def prepare(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Write what the shells read into the private folder; returns their environment.

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
    """Command line of an interactive shell, over SSH and in Jupyter's terminals."""
    program = env.get("SHELL") or "/bin/bash"
    return [program, *_LOGIN.get(Path(program).name, [])]


def quiet(env: Mapping[str, str]) -> list[str]:
    """Command line of a shell that reads nothing of the user's; ``-c`` and a command may follow."""
    program = env.get("SHELL") or "/bin/bash"
    return [program, *_NO_START_FILES.get(Path(program).name, [])]


def assignments(env: Mapping[str, str]) -> str:
    """``env`` as shell assignments, without what sshd sets for each session."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in _lasting(env).items())


def _lasting(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if _NAME.fullmatch(name) and name not in _OF_THE_SESSION and not name.startswith("SSH_")
    }


def _profile(env: Mapping[str, str]) -> str:
    """For any POSIX shell: ``PATH`` as it was before ``/etc/profile``, and whatever is missing."""
    missing = [
        f'[ -n "${{{name}+x}}" ] || export {name}={shlex.quote(value)}\n'
        for name, value in _lasting(env).items()
        if name != "PATH"
    ]
    return f"{''.join(missing)}export PATH={shlex.quote(env['PATH'])}\n"


def _in_home(path: str, home: str) -> bool:
    """Whether a start file is the user's own, which commands don't read."""
    return path.startswith(("~", "$HOME", "${HOME}", f"{home.rstrip('/')}/"))
