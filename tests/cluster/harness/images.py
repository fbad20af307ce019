"""Builds images in layers. Each layer is cached under the hash of its inputs and of the layers below it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .layout import Layout
from .oci import Blob, Image, write_layer


@dataclass(frozen=True)
class Layer:
    """One layer of an image. ``fill(root)`` is called with the root file system to change."""

    name: str
    """Name of the layer's folder. Only the newest layer of a name is kept."""
    key: str
    """A text that changes whenever the content of the layer would change."""
    fill: Callable[[Path], None]


class ImageError(Exception):
    """A command that fills a layer failed."""


def ensure_image(
    layout: Layout, reference: str, layers: Sequence[Layer], config: Mapping[str, Any] | None = None
) -> Image:
    """Build the image of these layers, lowest first. Only changed layers and those above them are rebuilt.

    ``config`` is the OCI image configuration (Entrypoint, Env, User, WorkingDir …).
    """
    blobs: list[Blob] = []
    below: list[Path] = []
    key = ""
    for layer in layers:
        key = hashlib.sha256(f"{key}\n{layer.name}\n{layer.key}".encode()).hexdigest()[:16]
        folder = _ensure_layer(layout.images / "layers", layer, key, below)
        found = json.loads((folder / "blob.json").read_text())
        blobs.append(Blob(found["digest"], found["size"], folder / "layer.tar"))
        below.append(folder / "files")
    return Image(reference, blobs, config or {})


def _ensure_layer(layers: Path, layer: Layer, key: str, below: list[Path]) -> Path:
    folder = layers / f"{layer.name}-{key}"
    if folder.exists():
        return folder
    print(f"harness: making the image layer {layer.name}", flush=True)
    partial = layers / f"{layer.name}.partial"
    for old in (partial, *layers.glob(f"{layer.name}-{'?' * 16}")):
        shutil.rmtree(old, ignore_errors=True)
    files = partial / "files"
    files.mkdir(parents=True)
    with _overlay(files, below, partial) as root:
        layer.fill(root)
    blob = write_layer(files, partial / "layer.tar")
    (partial / "blob.json").write_text(json.dumps({"digest": blob.digest, "size": blob.size}))
    partial.rename(folder)
    return folder


@contextmanager
def _overlay(upper: Path, below: list[Path], folder: Path) -> Iterator[Path]:
    """Mount the layers below with ``upper`` as the writable layer on top."""
    if not below:
        yield upper
        return
    work, merged = folder / "work", folder / "merged"
    work.mkdir()
    merged.mkdir()
    lower = ":".join(str(path) for path in reversed(below))
    # Without these three options, the upper directory would contain marks that only this kernel understands.
    options = f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off,index=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", "--lazy", merged], check=True)
    shutil.rmtree(work)
    merged.rmdir()


_CHROOT = """
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
while [ "$1" != -- ]; do
    if [ ! -e "$root/$2" ]; then
        if [ -d "$1" ]; then mkdir -p "$root/$2"; else mkdir -p "$root/${2%/*}"; touch "$root/$2"; fi
    fi
    mount --bind "$1" "$root/$2"
    shift 2
done
shift
exec chroot "$root" "$@"
"""


def run_in(root: Path, command: Sequence[str], binds: Mapping[Path, str], env: Mapping[str, str]) -> None:
    """Run a command in a root file system. ``binds`` mounts files and folders of the machine there.

    ``/tmp`` is empty and temporary, so files below it do not get into the layer. Only the command sees the
    mounts, and they end with it.
    """
    pairs = [part for source, target in binds.items() for part in (str(source), target)]
    inside = ["sh", "-euc", _CHROOT, "sh", str(root), *pairs, "--", *command]
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *inside],
        env={"PATH": path, "HOME": "/root", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        umask=0o022,
    )
    if done.returncode != 0:
        raise ImageError(
            f"{' '.join(command)} failed with {done.returncode} in {root}:\n{done.stdout[-4000:]}"
        )
