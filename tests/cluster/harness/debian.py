"""Installs the Debian or Ubuntu packages that the machine needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .layout import CHECKOUT

PACKAGES = (
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "debootstrap",
    "ethtool",
    "etcd-server",
    "gcc",
    "iproute2",
    "iptables",
    "kmod",
    "libc6-dev",
    "libfaketime",
    "mount",
    "nftables",
    "openssl",
    "rsync",
    "runc",
    "socat",
    "util-linux",
)
CNI_PLUGINS = "/usr/lib/cni"


class MissingError(Exception):
    """A package is missing and cannot be installed."""


def install(*packages: str) -> None:
    """Install missing packages, as root. Raises ``MissingError`` if that fails."""
    if subprocess.run([CHECKOUT / "tools" / "debian-packages", *packages]).returncode != 0:
        raise MissingError("packages of the machine are missing; which ones is said above")


def faketime() -> Path:
    """Return the library that gives a process a different clock when it is preloaded."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return library
