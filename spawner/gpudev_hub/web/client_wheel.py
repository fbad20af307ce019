"""The client as a wheel, made from the installed package, so that ``pip`` can install it from the hub."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from functools import cache
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

NAME = "gpudev"
TAG = "py3-none-any"
LICENSE = "licenses/LICENSE"


class Wheel(NamedTuple):
    """A wheel in memory."""

    name: str
    content: bytes


@cache
def client_wheel() -> Wheel:
    """Return a wheel of the client library and its commands, with the version and metadata installed here.

    The wheel has no code of the hub. Equal installations give equal bytes. Format: "Binary distribution
    format" in the packaging guide, with the METADATA file of the installation.
    """
    found = distribution(NAME)
    stem = f"{NAME}-{found.version}"
    info = f"{stem}.dist-info"
    root = Path(str(files(NAME)))
    content = {
        f"{NAME}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.parent.name != "__pycache__"
    }
    content[f"{info}/METADATA"] = (found.read_text("METADATA") or "").encode()
    content[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: gpudev\nRoot-Is-Purelib: true\nTag: {TAG}\n".encode()
    )
    commands = [
        entry
        for entry in found.entry_points
        if entry.group == "console_scripts" and entry.module.split(".")[0] == NAME
    ]
    lines = [f"{entry.name} = {entry.value}" for entry in sorted(commands)]
    content[f"{info}/entry_points.txt"] = ("\n".join(["[console_scripts]", *lines]) + "\n").encode()
    if text := found.read_text(LICENSE):
        content[f"{info}/{LICENSE}"] = text.encode()
    record = f"{info}/RECORD"
    content[record] = "".join(
        [*(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in content.items()), f"{record},,\n"]
    ).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return Wheel(f"{stem}-{TAG}.whl", packed.getvalue())


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
