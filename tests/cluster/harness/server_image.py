"""Builds the image of users' servers, on Debian instead of the public CUDA image, and the pause image.

The steps of ``infra/images/server/install.sh`` build it, like the image for production, with one layer each.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from .images import ImageError, Layer, ensure_image, run_in
from .layout import CHECKOUT, Layout
from .oci import Image

SERVER = CHECKOUT / "infra" / "images" / "server"
REQUIREMENTS = CHECKOUT / "requirements" / "server.txt"
WHEELS = CHECKOUT / ".tools" / "wheel"
UV = CHECKOUT / ".tools" / "bin" / "uv"
BASE = "localhost/gpudev-base:test"
"""The image without gpudev's own code."""
IMAGE = "localhost/gpudev-server:test"
PAUSE = "localhost/pause:test"
_STAND_IN = ("ca-certificates", "python3", "python3-venv")
"""Packages that the public CUDA image has and a minimal Debian lacks."""


def base_image(layout: Layout) -> Image:
    """Return the server image without gpudev's own code, which each node has from its first boot on."""
    return ensure_image(layout, BASE, server_layers(layout), _CONFIG)


def server_image(layout: Layout) -> Image:
    """Return the whole server image, with the code of this checkout."""
    return ensure_image(layout, IMAGE, [*server_layers(layout), _code(layout)], _CONFIG)


_CONFIG = {"Env": ["PATH=/opt/gpudev/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}


def server_layers(layout: Layout) -> list[Layer]:
    """Return the layers, lowest first: Debian, system programs, Python packages."""
    script = (SERVER / "install.sh").read_text()
    return [
        debian_layer(),
        Layer(
            "packages",
            script + (SERVER / "packages.txt").read_text(),
            lambda root: _install_packages(layout, root),
        ),
        Layer("python", script + file_hash(REQUIREMENTS), _install_python),
    ]


def debian_layer() -> Layer:
    """Return the layer with a minimal Debian, which is below every image except the pause image."""
    return Layer("debian", _suite(), _debootstrap)


def _code(layout: Layout) -> Layer:
    wheel = own_wheel()
    return Layer("code", file_hash(wheel), lambda root: _install_code(root, wheel))


def _debootstrap(root: Path) -> None:
    components = "main,universe" if _release("ID") == "ubuntu" else "main"
    options = ["--variant=minbase", "--merged-usr", "--force-check-gpg", f"--components={components}"]
    command = ["debootstrap", *options, _suite(), str(root), _mirror()]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, umask=0o022)
    if done.returncode != 0:
        raise ImageError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout[-4000:]}")
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/hostname").write_text("localhost\n")
    (root / "etc/dpkg/dpkg.cfg.d/small").write_text(
        "force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n"
    )
    for left in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*_*")):
        left.unlink()


def _install_packages(layout: Layout, root: Path) -> None:
    script = (
        "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d\n"
        "apt-get update -q\n"
        f"apt-get install -q -y --no-install-recommends {' '.join(_STAND_IN)}\n"
        "rm /usr/sbin/policy-rc.d\n"
        "/tmp/image/install.sh system"
    )
    run_packages(layout, root, script, {SERVER: "/tmp/image"})


def run_packages(
    layout: Layout, root: Path, script: str, binds: Mapping[Path, str] = MappingProxyType({})
) -> None:
    """Run a shell script that installs system packages. Downloads are cached for the next time."""
    archives = layout.images / "apt"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    run_in(
        root,
        ["sh", "-euc", script],
        {Path("/etc/resolv.conf"): "/etc/resolv.conf", archives: "/var/cache/apt/archives", **binds},
        {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", **_passed_on("http_proxy", "https_proxy")},
    )
    for index in root.glob("var/cache/apt/*.bin"):
        index.unlink()


def _install_python(root: Path) -> None:
    run_uv(
        root,
        ["/tmp/image/install.sh", "python", "/tmp/uv", "/tmp/requirements.txt"],
        {SERVER: "/tmp/image", REQUIREMENTS: "/tmp/requirements.txt"},
    )


def run_uv(root: Path, command: Sequence[str], binds: Mapping[Path, str]) -> None:
    """Run a command that installs Python packages with ``/tmp/uv``, from uv's cache or an index."""
    said = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout
    cache = Path(said.strip())
    cache.mkdir(parents=True, exist_ok=True)
    authorities = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    run_in(
        root,
        command,
        {
            Path("/etc/resolv.conf"): "/etc/resolv.conf",
            UV: "/tmp/uv",
            cache: "/tmp/cache",
            Path(authorities): "/tmp/ca.crt",
            **binds,
        },
        {
            "UV_CACHE_DIR": "/tmp/cache",
            "SSL_CERT_FILE": "/tmp/ca.crt",
            **_passed_on("http_proxy", "https_proxy", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX"),
        },
    )


def _install_code(root: Path, wheel: Path) -> None:
    run_in(
        root,
        ["/tmp/image/install.sh", "gpudev", "/tmp/uv", f"/tmp/{wheel.name}"],
        {SERVER: "/tmp/image", UV: "/tmp/uv", wheel: f"/tmp/{wheel.name}"},
        {},
    )


def own_wheel() -> Path:
    """Build the wheel with the code of this checkout."""
    (wheel,) = WHEELS.glob("*.whl")
    return wheel


def _passed_on(*names: str) -> dict[str, str]:
    """Return those of these variables that are set in this process."""
    return {name: os.environ[name] for name in names if name in os.environ}


def _suite() -> str:
    """Return the machine's own release, whose keyring and mirror are available."""
    return _release("VERSION_CODENAME")


def _release(name: str) -> str:
    found = re.search(rf"^{name}=(\S+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found:
        raise ImageError(f"/etc/os-release names no {name}: only Debian and Ubuntu can be built from")
    return found[1]


def _mirror() -> str:
    """Return the mirror from which the machine's apt gets its release."""
    said = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in said.splitlines():
        codename, component, site = line.split(maxsplit=2)
        if (codename, component) == (_suite(), "main"):
            return site
    raise ImageError(f"apt has no source for {_suite()} main, from which debootstrap could build:\n{said}")


def file_hash(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


_PAUSE_SOURCE = """\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


def pause_image(layout: Layout) -> Image:
    """Fill the layer with the pause program, which holds a pod's namespaces and only reaps processes."""
    return ensure_image(
        layout, PAUSE, [Layer("pause", _PAUSE_SOURCE, _compile_pause)], {"Entrypoint": ["/pause"]}
    )


def _compile_pause(root: Path) -> None:
    compiler = ["gcc", "-static", "-Os", "-s", "-x", "c", "-", "-o", str(root / "pause")]
    subprocess.run(compiler, input=_PAUSE_SOURCE, text=True, check=True)
