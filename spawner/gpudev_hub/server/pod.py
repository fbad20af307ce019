"""The first process of a server's container on Kubernetes: one rank, in the foreground.

``python -I -m gpudev_hub.server.pod SPEC RANK`` reads ``SPEC`` (JSON, one for all ranks, from a Secret):

``launch``                      the answer of the gate (``core.gate.Launch``)
``peers``                       ``{"host", "port"}`` per rank: the address of its sshd
``jupyter``                     command line of the Jupyter server; rank 0 runs it
``jupyter_port``, ``sshd_port`` ports of both, on all addresses
``env``                         environment of all ranks; overrides that of the container
``grace``                       seconds for an orderly end
``forbidden``                   optional: targets (``HOST:PORT``), besides the Kubernetes API, that network
                                policies must block; if empty, policies are not checked

This process works like the launcher on one machine, with three differences: the output of the parts goes to
standard output as ``NAME| line``, the reason for the end goes to the container's termination log as the JSON
of ``record.Exit``, and all processes get the environment of the container. All servers of a user share the
home. The only file of this server there is the link ``~/hostfile``, which has the same target in all servers.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import isolation, policies, record
from .launcher import Launcher
from .logs import Lines, Sink
from .record import TOLD, Exit

TERMINATION_LOG = Path("/dev/termination-log")
PRIVATE = Path("/run/gpudev/private")
"""The private folder, in memory. Its path is the same in every pod, so ``~/hostfile`` works in each."""
_SKELETON = Path("/etc/skel")
_INFINIBAND = Path("/dev/infiniband")
_REASON = 1000
"""Maximum characters of a reason. They always fit into a termination log (4096 bytes)."""
_FIELDS = ("launch", "peers", "jupyter", "jupyter_port", "sshd_port", "env", "grace")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CannotStart(Exception):
    """The server cannot be started. The message says why and what to do."""


def read_spec(path: Path, rank: int) -> dict[str, Any]:
    """Return the specification for this rank. Raises ``CannotStart`` if it is not valid."""
    what = f"the server's specification {path}"
    try:
        spec = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotStart(f"{what} cannot be read: {error}") from error
    absent = [name for name in _FIELDS if not isinstance(spec, dict) or name not in spec]
    if absent:
        raise CannotStart(f"{what} lacks {', '.join(absent)}: the image and the hub have different versions")
    ranks = len(spec["launch"]["allocation"])
    if not 0 <= rank < ranks:
        raise CannotStart(f"{what} has no rank {rank}: its ranks are 0 to {ranks - 1}")
    return dict(spec)


def environment(
    container: Mapping[str, str], spec: Mapping[str, Any], rank: int, account: pwd.struct_passwd, efa: bool
) -> dict[str, str]:
    """Return the environment of Jupyter, sessions and the agent. ``efa``: the container has EFA devices."""
    launch = spec["launch"]
    home = account.pw_dir
    # One folder per image: images share the home, and packages built for one torch fail with another.
    # PIP_USER is not set, because it makes every `pip install` in a virtual environment fail. pip uses this
    # folder anyway, since the packages of the image belong to root.
    image = re.sub(r"[^A-Za-z0-9._-]+", "-", launch["image"]).strip("-.") or "image"
    packages = f"{home}/.local/share/gpudev/{image}"
    defaults = {
        "LANG": "C.UTF-8",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",  # otherwise Debian's Python refuses to install into a home
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
    """Return the code of an ``Exit`` as a shell reports it: 128 plus the number for a signal."""
    return code if code >= 0 else 128 - code


def check_policies(
    forbidden: Sequence[str], container: Mapping[str, str], patience: float = policies.PATIENCE
) -> None:
    """Wait until the server's network policies are in force. Raises ``CannotStart`` if that takes too long.

    ``container`` is the environment of the container; it has the address of the Kubernetes API.
    """
    if not forbidden:
        return
    api = ":".join(container.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    reached = policies.wait_until_enforced([*forbidden, api], patience)
    if reached:
        raise CannotStart(
            "the network policies of this server are not enforced: it can reach "
            f"{' and '.join(reached)}. Tell an operator"
        )


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        raise CannotStart(
            f"the image has no account for uid {os.getuid()}, which sshd needs"
            " (infra/images/server/install.sh creates it)"
        ) from None


def _check_home(home: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=home):
            return
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return  # if the home is full, the user must be able to connect and free space
        problem = error.strerror
    try:
        found = home.stat()
        state = f"it belongs to {found.st_uid}:{found.st_gid}, mode {stat.S_IMODE(found.st_mode):o}"
    except OSError as error:
        state = f"its owner is unknown: {error.strerror}"
    raise CannotStart(
        f"the home {home} cannot be written by uid {os.getuid()}: {problem} ({state});"
        " check the user's volume"
    )


def furnish(home: Path, skeleton: Path) -> None:
    """Copy the files of a new account into an empty home. A home in use is not changed.

    Another server of the user may copy the same files now, so nothing is overwritten. Raises ``OSError``.
    """
    if not skeleton.is_dir() or any(entry.name != "lost+found" for entry in home.iterdir()):
        return
    for source in sorted(skeleton.rglob("*")):
        target = home / source.relative_to(skeleton)
        if source.is_dir():
            target.mkdir(exist_ok=True)
            continue
        with suppress(FileExistsError), target.open("xb") as file:
            file.write(source.read_bytes())


def _jupyter(command: list[str], env: Mapping[str, str]) -> list[str]:
    """Return the command line of Jupyter. The one next to this Python comes first: its version is right."""
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
    forbidden = spec.get("forbidden", ())
    check_policies(forbidden, os.environ)
    if forbidden:
        log.write(b"its network policies are in force\n")
    account = _account()
    env = environment(os.environ, spec, rank, account, any(_INFINIBAND.glob("uverbs*")))
    home = Path(account.pw_dir)
    _check_home(home)
    try:
        furnish(home, _SKELETON)
    except OSError as error:
        log.write(f"not all files of {_SKELETON} could be copied into the new home: {error}\n".encode())
    try:
        PRIVATE.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"the folder {PRIVATE} for private files cannot be created: {error}") from error
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
    """Write how the server ended to the log and to the termination log; return the exit status."""
    log.write(f"ended: {ended.reason}\n".encode())
    fields = asdict(ended) | {"reason": ended.reason[:_REASON]}
    try:
        TERMINATION_LOG.write_text(json.dumps(fields, ensure_ascii=False))
    except OSError as error:
        log.write(f"{TERMINATION_LOG} cannot be written: {error}\n".encode())
    return exit_status(ended.code)


def main(argv: list[str]) -> int:
    """Run one rank until it ends; return the exit status of the container."""
    os.umask(0o022)
    os.set_blocking(sys.stdout.fileno(), False)
    log = Lines("launcher", sys.stdout.fileno())

    def told(*_: object) -> None:
        # The first process of a container gets only signals that it handles. No part runs yet.
        os._exit(_report(Exit(0, f"{TOLD} before it had started"), log))

    signal.signal(signal.SIGTERM, told)
    return _report(_run(argv, log), log)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
