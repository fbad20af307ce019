"""What a user installs changes neither the hub, nor the servers' base, nor anybody else's environment."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from gpudev_hub.hub.environments import ensure_environment
from gpudev_hub.settings import CHECKOUT

BASE = CHECKOUT / ".venv-server" / "bin" / "python"
pytestmark = pytest.mark.skipif(not BASE.exists(), reason="`make setup` makes the servers' environment")


def wheel(folder: Path, name: str, version: str) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def times(folder: Path) -> dict[str, int]:
    return {path: (folder / path).lstat().st_mtime_ns for path in tree(folder) if (folder / path).is_file()}


def test_a_users_installation_is_his_alone(tmp_path: Path) -> None:
    alice, bob = tmp_path / "a state folder of it's own" / "alice", tmp_path / "bob"
    for folder in (alice, bob):
        ensure_environment(folder, BASE)
    base = BASE.parent.parent
    before = tree(base)
    version = "import tornado, sys; print(tornado.version, sys.prefix)"
    was = run(bob / "bin" / "python", "-c", version)
    install: list[str | Path] = [alice / "bin" / "pip", "install", "-q", "--no-index", "--no-deps"]
    run(*install, wheel(tmp_path, "gpudev_try", "1.0"))
    # Even what JupyterLab itself needs may be replaced, for this user's own programs.
    run(*install, "--no-build-isolation", wheel(tmp_path, "tornado", "99.0"))
    assert run(alice / "bin" / "python", "-c", "import gpudev_try; print(gpudev_try.__version__)") == "1.0\n"
    assert run(alice / "bin" / "python", "-c", "import tornado; print(tornado.__version__)") == "99.0\n"
    assert run(bob / "bin" / "python", "-c", version) == was
    assert tree(base) == before
    done = subprocess.run(
        [bob / "bin" / "python", "-c", "import gpudev_try"], capture_output=True, check=False
    )
    assert done.returncode != 0


def test_kernels_run_from_it_and_a_second_call_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "env"
    ensure_environment(folder, BASE)
    kernel = json.loads((folder / "share/jupyter/kernels/python3/kernel.json").read_text())
    assert kernel["argv"][0] == str(folder / "bin" / "python")
    assert run(kernel["argv"][0], "-c", "import ipykernel, sys; print(sys.prefix)").strip() == str(folder)
    before = times(folder)
    ensure_environment(folder, BASE)
    assert times(folder) == before


def test_a_pip_that_cannot_run_is_replaced_and_a_users_own_stays(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    ensure_environment(folder, BASE)
    pip = folder / "bin" / "pip"
    good = pip.read_text()
    pip.write_text(f"#!{folder}/bin/python\nimport sys\nfrom pip._internal.cli.main import main\n")
    ensure_environment(folder, BASE)
    assert pip.read_text() == good
    assert run(pip, "--version").startswith("pip ")
    pip.write_text("#!/bin/sh\necho mine\n")
    ensure_environment(folder, BASE)
    assert run(pip) == "mine\n"


SHADOWS = ("types", "warnings", "contextlib", "tornado", "zmq", "traitlets", "IPython", "asyncio", "logging")


def test_a_kernel_starts_beside_modules_that_are_called_as_its_own(tmp_path: Path) -> None:
    """A notebook's folder is searched for the notebook's imports, not for what its kernel starts with."""
    folder = tmp_path / "env"
    ensure_environment(folder, BASE)
    kernel = json.loads((folder / "share/jupyter/kernels/python3/kernel.json").read_text())
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the user')\n")
    (tmp_path / "mine.py").write_text("answer = 42\n")
    script = """
import json, sys
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec
manager = KernelManager()
manager._kernel_spec = KernelSpec(argv=json.loads(sys.argv[1]), display_name="", language="python")
manager.start_kernel(cwd=sys.argv[2])
client = manager.client()
client.start_channels()
try:
    client.wait_for_ready(timeout=60)
    client.execute_interactive("import mine; print(mine.answer)", timeout=60)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""
    assert run(BASE, "-I", "-c", script, json.dumps(kernel["argv"]), tmp_path) == "42\n"
