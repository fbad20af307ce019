"""The users' server image, on Debian in place of the public CUDA image; and the image that pods pause with.

System packages come from ``infra/images/server/packages.txt`` and Python's from ``requirements/server.txt``,
as in the image that ships; a test adds the start-up files as one more, small layer.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from hashlib import sha256
from pathlib import Path

from .images import ImageError, Layer, ensure_image, run_in
from .layout import CHECKOUT, Layout
from .oci import Image

PACKAGES = CHECKOUT / "infra" / "images" / "server" / "packages.txt"
REQUIREMENTS = CHECKOUT / "requirements" / "server.txt"
ENVIRONMENT = "/opt/gpudev"
"""Where the servers' Python environment lies in the image."""
BASE = "localhost/gpudev-base:test"
"""Everything but our own code."""
PAUSE = "localhost/pause:test"
_STAND_IN = ("ca-certificates", "python3", "python3-venv")
"""What the public CUDA image has and Debian's minimum has not."""


def base_image(layout: Layout) -> Image:
    """The server image without our own code; what a test adds goes on top of ``server_layers``."""
    return ensure_image(layout, BASE, server_layers(layout), {"Env": [f"PATH={ENVIRONMENT}/bin:{_PATH}"]})


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def server_layers(layout: Layout) -> list[Layer]:
    """Debian, its packages, Python's packages: lowest first."""
    packages = [*_STAND_IN, *read_packages(PACKAGES)]
    archives = layout.images / "apt"
    return [
        Layer("debian", _suite(), _debootstrap),
        Layer("packages", " ".join(packages), lambda root: _install(root, packages, archives)),
        Layer("python", _hash(REQUIREMENTS), _python),
    ]


def read_packages(path: Path) -> list[str]:
    """Names of packages, one a line; ``#`` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def _debootstrap(root: Path) -> None:
    options = ["--variant=minbase", "--merged-usr", "--force-check-gpg"]
    command = ["debootstrap", *options, _suite(), str(root), _mirror()]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise ImageError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout[-4000:]}")
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/hostname").write_text("localhost\n")
    (root / "etc/dpkg/dpkg.cfg.d/small").write_text(
        "force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n"
    )
    for left in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*_*")):
        left.unlink()


def _install(root: Path, packages: list[str], archives: Path) -> None:
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    script = (
        "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d\n"
        "apt-get update -q\n"
        'apt-get install -q -y --no-install-recommends "$@"\n'
        # A host key in an image would be everybody's.
        "rm -rf /usr/sbin/policy-rc.d /var/lib/apt/lists/* /etc/ssh/ssh_host_*"
    )
    run_in(
        root,
        ["sh", "-euc", script, "sh", *packages],
        {Path("/etc/resolv.conf"): "/etc/resolv.conf", archives: "/var/cache/apt/archives"},
        {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", **_passed_on("http_proxy", "https_proxy")},
    )


def _python(root: Path) -> None:
    """The environment has its final path while it is made: scripts and byte code name it."""
    cache = Path(
        subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    )
    cache.mkdir(parents=True, exist_ok=True)
    authorities = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    script = (
        f"/tmp/uv venv --quiet --python /usr/bin/python3 {ENVIRONMENT}\n"
        f"/tmp/uv pip sync --quiet --require-hashes --compile-bytecode --python {ENVIRONMENT}/bin/python"
        " /tmp/requirements.txt"
    )
    run_in(
        root,
        ["sh", "-euc", script],
        {
            Path("/etc/resolv.conf"): "/etc/resolv.conf",
            UV: "/tmp/uv",
            cache: "/tmp/cache",
            REQUIREMENTS: "/tmp/requirements.txt",
            Path(authorities): "/tmp/ca.crt",
        },
        {
            "UV_CACHE_DIR": "/tmp/cache",
            "UV_LINK_MODE": "copy",
            "UV_PYTHON_DOWNLOADS": "never",
            "SSL_CERT_FILE": "/tmp/ca.crt",
            **_passed_on("http_proxy", "https_proxy", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX"),
        },
    )


UV = CHECKOUT / ".tools" / "bin" / "uv"


def _passed_on(*names: str) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _suite() -> str:
    """The machine's own release: its keyring and its mirror are there."""
    found = re.search(r"^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found:
        raise ImageError(
            "/etc/os-release names no VERSION_CODENAME: only Debian and Ubuntu can be built from"
        )
    return found[1]


def _mirror() -> str:
    """Where the machine's apt has its release from."""
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


def _hash(path: Path) -> str:
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
    """Holds a pod's namespaces; does nothing but reap."""
    return ensure_image(
        layout, PAUSE, [Layer("pause", _PAUSE_SOURCE, _compile_pause)], {"Entrypoint": ["/pause"]}
    )


def _compile_pause(root: Path) -> None:
    compiler = ["gcc", "-static", "-Os", "-s", "-x", "c", "-", "-o", str(root / "pause")]
    subprocess.run(compiler, input=_PAUSE_SOURCE, text=True, check=True)
