"""Builds the bastion's image: the instructions of its Dockerfile on the same Debian as servers here."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

from .dockerfile import FOLDERS, instruction
from .images import Layer, ensure_image
from .layout import Layout
from .oci import Image
from .server_image import debian_layer, run_packages

FOLDER = FOLDERS / "bastion"
BASE = "localhost/gpudev-bastion-base:test"
"""The image without gpudev's own scripts. Its build needs the network."""
BASTION = "localhost/gpudev-bastion"


def bastion_base(layout: Layout) -> Image:
    """Return the image without gpudev's own scripts."""
    return ensure_image(layout, BASE, _base_layers(layout))


def bastion_image(layout: Layout, tag: str = "test") -> Image:
    """Return the whole image, with the scripts of this checkout. Images with different tags share layers."""
    code = Layer("bastion", _hash(), _copy)
    config = {
        "User": "1000:1000",
        "Entrypoint": ["/bin/bash", "/usr/lib/gpudev/bastion"],
        "WorkingDir": "/",
        "Labels": {"tag": tag},
    }
    return ensure_image(layout, f"{BASTION}:{tag}", [*_base_layers(layout), code], config)


def _base_layers(layout: Layout) -> list[Layer]:
    script = instruction("bastion", "RUN")
    return [
        debian_layer(),
        Layer("bastion-packages", script, lambda root: run_packages(layout, root, script)),
    ]


def _copy(root: Path) -> None:
    """Copy the scripts and the file that they share, like the two COPY instructions."""
    folder = root / "usr" / "lib" / "gpudev"
    folder.mkdir(parents=True)
    for path in _scripts():
        copied = Path(shutil.copy(path, folder))
        copied.chmod(0o644 if path.name == "lib" else 0o755)


def _scripts() -> list[Path]:
    return sorted(path for path in FOLDER.iterdir() if path.name != "Dockerfile")


def _hash() -> str:
    return sha256(b"".join(path.name.encode() + path.read_bytes() for path in _scripts())).hexdigest()
