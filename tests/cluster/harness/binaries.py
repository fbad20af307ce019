"""Builds Kubernetes, CoreDNS, helm and kwok from the Go module proxy, at the versions of ``go/*/go.mod``.

The binaries of a module are rebuilt when a file of the module changes. kwok is a separate module because it
needs a newer kubelet library than the kubelet built here. helm is in the module of Kubernetes because they
share most packages, which are then compiled once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .debian import install
from .layout import Layout

MODULES = Path(__file__).with_name("go")
NEEDED = ("kubernetes",)
"""The binaries that all tests need. kwok is built on first use."""
COMPILER_FLAGS = "-dwarf=false -l"
"""Flags without debug tables and inlining. Compilation takes a third less, and speed matters little."""


class BuildError(Exception):
    """A binary could not be built."""


def ensure_binaries(layout: Layout, modules: Iterable[str] = NEEDED) -> None:
    """Build what is missing or out of date. The first build takes minutes."""
    for module in modules:
        folder = MODULES / module
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        key = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        stamp = layout.binaries / f"{module}.stamp"
        if stamp.exists() and stamp.read_text() == key:
            continue
        layout.binaries.mkdir(parents=True, exist_ok=True)
        print(f"harness: building {module} (minutes for the first time)", flush=True)
        build(folder, layout)
        stamp.write_text(key)


def build(folder: Path, layout: Layout) -> None:
    """Build all tools of one module in one call, so that packages they share are compiled once."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "auto"}
    command = ["nice", go(folder, layout), "build", "-trimpath", "-buildvcs=false"]
    command += [f"-gcflags=all={COMPILER_FLAGS}", f"-ldflags={link_flags(folder)}"]
    command += ["-o", f"{layout.binaries}/", "tool"]
    if subprocess.run(command, cwd=folder, env=environment).returncode != 0:
        raise BuildError(f"the Go tools of {folder} could not be built; the compiler's words are above")


def link_flags(folder: Path) -> str:
    """Return linker flags: no symbols, and Kubernetes' version, which clients read from the server."""
    flags = "-s -w"
    if found := re.search(r"k8s\.io/kubernetes v((\d+)\.(\d+)\.\d+)", (folder / "go.mod").read_text()):
        version, major, minor = found.groups()
        at = "-X k8s.io/component-base/version."
        flags += f" {at}gitVersion=v{version} {at}gitMajor={major} {at}gitMinor={minor}"
    return flags


def go(folder: Path, layout: Layout) -> str:
    """Return a Go that can build the module: the machine's if it can fetch newer ones, or a fetched one."""
    if not shutil.which("go"):
        install("golang-go")
    said = subprocess.run(["go", "version"], capture_output=True, text=True, check=True, cwd="/").stdout
    found = re.search(r"go1\.(\d+)", said)
    if found and int(found[1]) >= 21:  # the first version that supports GOTOOLCHAIN
        return "go"
    wanted = re.search(r"^go (\S+)", (folder / "go.mod").read_text(), re.MULTILINE)
    if not wanted:
        raise BuildError(f"{folder / 'go.mod'} has no `go` line, which says the version of Go to build with")
    return fetched_go(wanted[1])


def fetched_go(version: str) -> str:
    """Fetch Go's own distribution as a module, for an old Go that cannot fetch newer versions itself."""
    architecture = subprocess.run(
        ["go", "env", "GOARCH"], capture_output=True, text=True, check=True, cwd="/"
    ).stdout.strip()
    name = f"golang.org/toolchain@v0.0.1-go{version}.linux-{architecture}"
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"GO111MODULE": "on", "GOFLAGS": "-mod=mod"}
        done = subprocess.run(
            ["go", "mod", "download", "-json", name],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )
        found = re.search(r'"Dir": "(.+)"', done.stdout)
        if not found:
            raise BuildError(f"Go {version} could not be fetched ({name}): {done.stdout}{done.stderr}")
    root = Path(found[1])
    # Files of unpacked modules are not executable.
    for file in (*root.glob("bin/*"), *root.glob("pkg/tool/*/*")):
        file.chmod(0o755)
    return str(root / "bin" / "go")
