"""A Python environment per owner, so that packages they install affect neither the hub nor other users.

It is a virtual environment that also finds the packages of the servers' environment (``.venv-server``).
Kernels, terminals and SSH sessions run in it. JupyterLab runs from ``.venv-server``, so that no package
installed by a user can break it.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from gpudev_hub.server import private

# Both sh and Python read this: the path may have spaces, or be too long for the kernel's "#!".
_PIP = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""

# With "-m", Python would import ipykernel's modules from the folder of the notebook: a types.py there would
# end every kernel. ipykernel adds the folder later, for the imports of the notebook.
_KERNEL = (
    "import sys; del sys.path[0]; from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)


def _replace(path: Path, text: str, mode: int = 0o644) -> None:
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    private.write(path, text, mode)


def ensure_environment(folder: Path, base_python: Path) -> None:
    """Create or update the environment in ``folder``, based on the environment of ``base_python``."""
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
        # A pip that the user upgraded stays. The script of an earlier version fails with spaces.
        if not pip.exists() or pip.read_text().startswith(f"#!{python}\nimport sys\nfrom pip"):
            _replace(pip, _PIP.format(python=shlex.quote(str(python))), 0o755)
    kernel = {
        "argv": [str(programs / "python"), "-Xfrozen_modules=off", "-c", _KERNEL, "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "metadata": {"debugger": True},
    }
    _replace(
        folder / "share" / "jupyter" / "kernels" / "python3" / "kernel.json", json.dumps(kernel, indent=1)
    )
