"""A Python environment per owner: what he installs changes neither the hub nor anybody else's.

It is a virtual environment without packages of its own whose path goes on into the servers' environment
(``.venv-server``). JupyterLab itself runs from there, so nothing that is installed here can break it;
kernels, terminals and SSH sessions run from here.
"""

from __future__ import annotations

import json
from pathlib import Path

_PIP = """\
#!{python}
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""


def _replace(path: Path, text: str, mode: int = 0o644) -> None:
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)


def ensure_environment(folder: Path, base_python: Path) -> None:
    """Make, or bring up to date, the environment in ``folder`` on top of the one ``base_python`` is in."""
    base = base_python.parent.parent
    libraries = next((base / "lib").glob("python3.*"))
    settings = dict(
        line.split(" = ", 1) for line in (base / "pyvenv.cfg").read_text().splitlines() if " = " in line
    )
    interpreter = (Path(settings["home"]) / libraries.name).resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = f"home = {settings['home']}\ninclude-system-site-packages = false\nexecutable = {interpreter}\n"
    _replace(folder / "pyvenv.cfg", config)
    packages = folder / "lib" / libraries.name / "site-packages"
    _replace(packages / "_gpudev_base.pth", f"{libraries / 'site-packages'}\n")
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("python", "python3", libraries.name):
        link = programs / name
        if not link.is_symlink() or link.readlink() != interpreter:
            link.unlink(missing_ok=True)
            link.symlink_to(interpreter)
    for name in ("pip", "pip3"):
        if not (programs / name).exists():
            _replace(programs / name, _PIP.format(python=programs / "python"), 0o755)
    kernel = {
        "argv": [
            str(programs / "python"),
            "-Xfrozen_modules=off",
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
        ],
        "display_name": "Python 3",
        "language": "python",
        "metadata": {"debugger": True},
    }
    _replace(
        folder / "share" / "jupyter" / "kernels" / "python3" / "kernel.json", json.dumps(kernel, indent=1)
    )
