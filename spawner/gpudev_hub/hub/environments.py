"""A Python environment per owner: what he installs changes neither the hub nor anybody else's.

It is a virtual environment without packages of its own whose path goes on into the servers' environment
(``.venv-server``). JupyterLab itself runs from there, so nothing that is installed here can break it;
kernels, terminals and SSH sessions run from here.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from gpudev_hub.server import private

# Its path may be longer than the kernel allows after "#!", or have spaces: sh and Python both read this.
_PIP = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""

# With "-m" Python imports from the folder of the notebook before ipykernel can prevent it: a types.py there
# would end every kernel. ipykernel adds the folder later, for the notebook's own imports.
_KERNEL = (
    "import sys; del sys.path[0]; from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)


def _replace(path: Path, text: str, mode: int = 0o644) -> None:
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    private.write(path, text, mode)


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
        pip, python = programs / name, programs / "python"
        # One that was upgraded is the user's; the one that came with an earlier version fails with spaces.
        if not pip.exists() or pip.read_text().startswith(f"#!{python}\nimport sys\nfrom pip"):
            _replace(pip, _PIP.format(python=shlex.quote(str(python))), 0o755)
    kernel = {
        "argv": [
            str(programs / "python"),
            "-Xfrozen_modules=off",
            "-c",
            _KERNEL,
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
