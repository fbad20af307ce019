"""The real ``gpu-dev`` with more time, for tests whose result must not depend on the speed of the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gpudev import sshinclude

_PROGRAM = """#!{python}
from gpudev import cli, ssh, sshinclude
from gpudev.cli import sync, why

ssh.FRESH = 3600.0
sync.PATIENCE = why.TIMEOUT = 60.0
sshinclude.program = lambda: {path!r}
cli.main()
"""


def patient_gpu_dev(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a ``gpu-dev`` that waits a minute for a service, and asks it once an hour before connections.

    The SSH settings that are written from now on run it.
    """
    path = folder / "patient-gpu-dev"
    path.write_text(_PROGRAM.format(python=sys.executable, path=str(path)))
    path.chmod(0o755)
    monkeypatch.setattr(sshinclude, "program", lambda: str(path))
    return path
