"""The first process of a server's container on Kubernetes: one rank, in the foreground.

``python -I -m gpudev_hub.server.pod SPEC RANK`` reads ``SPEC`` (JSON, one for all ranks, from a Secret):

``launch``                      what the gate answered (``core.gate.Launch``)
``peers``                       ``{"host", "port"}`` per rank: where its sshd is reached
``jupyter``                     command line of Jupyter's server; rank 0 runs it
``jupyter_port``, ``sshd_port`` where both listen, on all addresses
``env``                         environment of all ranks; goes before the container's own
``grace``                       seconds for an orderly end

It does what the launcher does on one machine, and differs in three things: what the parts say goes to
standard output as ``NAME| line``, how it ended goes to the container's termination log as the JSON of
``record.Exit``, and the container's environment goes on to everything in it. The home is shared by all of the
user's servers: nothing of this one lies there but the link ``~/hostfile``, the same path in each of them.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import isolation, record
from .launcher import Launcher
from .logs import Lines, Sink
from .record import TOLD, Exit

TERMINATION_LOG = Path("/dev/termination-log")
PRIVATE = Path("/run/gpudev/private")
"""In memory, and the same in every pod, so that ``~/hostfile`` is right in all of them."""
_SKELETON = Path("/etc/skel")
_INFINIBAND = Path("/dev/infiniband")
_REASON = 1000
"""Characters of a reason that are sure to fit into a termination log (4096 bytes)."""
_FIELDS = ("launch", "peers", "jupyter", "jupyter_port", "sshd_port", "env", "grace")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CannotStart(Exception):
    """The server can't be started; the message says which part of it, why, and what to do."""


def read_spec(path: Path, rank: int) -> dict[str, Any]:
    """The specification, if it is one that has this rank. Raises ``CannotStart``."""
    what = f"the server's specification {path}"
    try:
        spec = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotStart(f"{what} can't be read: {error}") from error
    absent = [name for name in _FIELDS if not isinstance(spec, dict) or name not in spec]
    if absent:
        raise CannotStart(f"{what} lacks {', '.join(absent)}: is the image older than the hub?")
    ranks = len(spec["launch"]["allocation"])
    if not 0 <= rank < ranks:
        raise CannotStart(f"{what} has {ranks} ranks, and this is to be rank {rank}")
    return dict(spec)


def environment(
    container: Mapping[str, str], spec: Mapping[str, Any], rank: int, account: pwd.struct_passwd, efa: bool
) -> dict[str, str]:
    """What Jupyter, sessions over SSH and the agent get alike; ``efa``: the container has EFA devices."""
    launch = spec["launch"]
    home = account.pw_dir
    # One place per image: they share the home, and what was built for one torch breaks with another.
    # PIP_USER would do too, but makes every `pip install` in a virtual environment fail; without it pip
    # goes to this place by itself, since the image's own packages belong to root.
    image = re.sub(r"[^A-Za-z0-9._-]+", "-", launch["image"]).strip("-.") or "image"
    packages = f"{home}/.local/share/gpudev/{image}"
    defaults = {
        "LANG": "C.UTF-8",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",  # Debian's Python refuses installations into a home without it
        "PYTHONUSERBASE": packages,
        "GPUDEV_NODE": launch["allocation"][rank]["node"],
    }
    if efa:
        defaults |= {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1"}
    env = {**defaults, **container, **spec["env"]}
    programs = [f"{env['PYTHONUSERBASE']}/bin", f"{home}/.local/bin", env.get("PATH", _SYSTEM_PATH)]
    return env | {
        "HOME": home,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/bash",
        "PATH": ":".join(programs),
        "NODE_RANK": str(rank),
        "JUPYTER_RUNTIME_DIR": str(PRIVATE / "runtime"),
        record.MARKER: record.marker(launch["id"], launch["attempt"], rank),
    }


def exit_status(code: int) -> int:
    """What a shell makes of an ``Exit``'s code: 128 and the signal's number for a signal."""
    return code if code >= 0 else 128 - code


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        raise CannotStart(
            f"the image has no account for uid {os.getuid()}, which sshd needs"
            " (infra/images/server/install.sh makes it)"
        ) from None


def _check_home(home: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=home):
            return
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return  # he must get in to make room
        problem = error.strerror
    try:
        found = home.stat()
        state = f"it belongs to {found.st_uid}:{found.st_gid}, mode {stat.S_IMODE(found.st_mode):o}"
    except OSError as error:
        state = f"nothing can be learnt of it: {error.strerror}"
    raise CannotStart(
        f"the home {home} can't be written to by uid {os.getuid()}: {problem} ({state});"
        " look at the user's volume"
    )


def furnish(home: Path, skeleton: Path) -> None:
    """Give an empty home what new accounts get; one in use is its user's, who may have removed files.

    Another of his servers may do the same just now: nothing is overwritten. Raises ``OSError``.
    """
    if not skeleton.is_dir() or any(entry.name != "lost+found" for entry in home.iterdir()):
        return
    for source in sorted(skeleton.rglob("*")):
        target = home / source.relative_to(skeleton)
        if source.is_dir():
            target.mkdir(exist_ok=True)
            continue
        try:
            with target.open("xb") as file:
                file.write(source.read_bytes())
        except FileExistsError:
            pass


def _jupyter(command: list[str], env: Mapping[str, str]) -> list[str]:
    """Jupyter's command line, found beside this Python first: the image's own may be any version."""
    own = Path(sys.executable).parent
    program = shutil.which(command[0], path=f"{own}:{env['PATH']}")
    if program is None:
        raise CannotStart(
            f"JupyterLab is not installed in this image: no {command[0]} in {own} or on the PATH"
        )
    return [program, *command[1:]]


def _prepare(argv: list[str], log: Sink) -> Launcher:
    rank = int(argv[2])
    spec = read_spec(Path(argv[1]), rank)
    account = _account()
    env = environment(os.environ, spec, rank, account, any(_INFINIBAND.glob("uverbs*")))
    home = Path(account.pw_dir)
    _check_home(home)
    try:
        furnish(home, _SKELETON)
    except OSError as error:
        log.write(f"the new home has not got all files of {_SKELETON}: {error}\n".encode())
    try:
        PRIVATE.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"there is no place for the server's private files: {error}") from error
    own = {
        "rank": rank,
        "jupyter": _jupyter(spec["jupyter"], env) if rank == 0 else None,
        "home": str(home),
        "env": env,
    }
    log.write(f"{env[record.MARKER]} starts on {env['GPUDEV_NODE']}\n".encode())
    return Launcher(spec | own, PRIVATE, lambda name: Lines(name, sys.stdout.fileno()), listen=None)


def _run(argv: list[str], log: Sink) -> Exit:
    try:
        isolation.adopt_orphans()
        launcher = _prepare(argv, log)
        launcher.run()
    except CannotStart as error:
        return Exit(1, str(error))
    except Exception as error:
        log.write(traceback.format_exc().encode())
        return Exit(1, f"the launcher failed: {type(error).__name__}: {error}")
    shutil.rmtree(PRIVATE, ignore_errors=True)
    assert launcher.exit is not None
    return launcher.exit


def _report(ended: Exit, log: Sink) -> int:
    """Say how it ended where the kubelet and people look; returns the exit status."""
    log.write(f"ended: {ended.reason}\n".encode())
    fields = asdict(ended) | {"reason": ended.reason[:_REASON]}
    try:
        TERMINATION_LOG.write_text(json.dumps(fields, ensure_ascii=False))
    except OSError as error:
        log.write(f"{TERMINATION_LOG} can't be written: {error}\n".encode())
    return exit_status(ended.code)


def main(argv: list[str]) -> int:
    """Run one rank until it ends; returns the container's exit status."""
    os.umask(0o022)
    os.set_blocking(sys.stdout.fileno(), False)
    log = Lines("launcher", sys.stdout.fileno())

    def told(*_: object) -> None:
        # The kernel keeps signals without a handler from a container's first process; nothing runs yet.
        os._exit(_report(Exit(0, f"{TOLD} before it had started"), log))

    signal.signal(signal.SIGTERM, told)
    return _report(_run(argv, log), log)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
