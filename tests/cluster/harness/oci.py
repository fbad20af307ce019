"""Writes container images: a layer is the tar of an overlay's upper directory; an image adds some JSON.

It follows the OCI image specification 1.0 (layer, config, manifest, layout). Layers never leave the machine,
so they are not compressed, and the digest of a layer is also its diff id.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_MEDIA = "application/vnd.oci.image."
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True)
class Blob:
    """One layer on disk."""

    digest: str
    size: int
    path: Path


@dataclass(frozen=True)
class Image:
    """A name, layers (lowest first) and the configuration of containers."""

    reference: str
    layers: Sequence[Blob]
    config: Mapping[str, Any]

    @property
    def digests(self) -> list[str]:
        """The digests of the layers. Images with the same layers and the same configuration are equal."""
        return [layer.digest for layer in self.layers]


def write_layer(upper: Path, target: Path) -> Blob:
    """Tar an overlay's upper directory, and convert the overlay's marks of deleted files into OCI's."""
    with target.open("wb") as raw:
        hashing = _Hashing(raw)
        # Streaming mode keeps no members in memory and never seeks.
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
            for path in _walk(upper):
                _add(tar, upper, path)
    return Blob(f"sha256:{hashing.digest.hexdigest()}", target.stat().st_size, target)


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _add(tar: tarfile.TarFile, upper: Path, path: Path) -> None:
    name = str(path.relative_to(upper))
    found = path.lstat()
    if stat.S_ISSOCK(found.st_mode):
        return
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        tar.addfile(tarfile.TarInfo(str(path.relative_to(upper).with_name(_WHITEOUT + path.name))))
        return
    tar.add(path, name, recursive=False)
    if stat.S_ISDIR(found.st_mode) and "trusted.overlay.opaque" in os.listxattr(path, follow_symlinks=False):
        tar.addfile(tarfile.TarInfo(f"{name}/{_OPAQUE}"))


class _Hashing(io.RawIOBase):
    """Passes data on and hashes it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._target.write(data)


def write_archive(image: Image, present: set[str], target: IO[bytes]) -> None:
    """Write an OCI archive of the image, without layers that the reader already has (``present``)."""
    layers = [_descriptor("layer.v1.tar", layer.digest, layer.size) for layer in image.layers]
    config = _document(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": dict(image.config),
            "rootfs": {"type": "layers", "diff_ids": image.digests},
        }
    )
    manifest = _document(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}manifest.v1+json",
            "config": _descriptor("config.v1+json", _digest(config), len(config)),
            "layers": layers,
        }
    )
    top = _descriptor("manifest.v1+json", _digest(manifest), len(manifest))
    top["annotations"] = {"io.containerd.image.name": image.reference}
    with tarfile.open(fileobj=target, mode="w|", bufsize=1 << 20) as tar:
        _put(tar, "oci-layout", _document({"imageLayoutVersion": "1.0.0"}))
        _put(tar, "index.json", _document({"schemaVersion": 2, "manifests": [top]}))
        for document in (config, manifest):
            _put(tar, _blob_path(_digest(document)), document)
        for layer in image.layers:
            if layer.digest not in present:
                tar.add(layer.path, _blob_path(layer.digest))


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": _MEDIA + kind, "digest": digest, "size": size}


def _document(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _digest(document: bytes) -> str:
    return f"sha256:{hashlib.sha256(document).hexdigest()}"


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
