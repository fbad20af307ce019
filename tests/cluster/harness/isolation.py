"""Isolates the cluster: its own addresses, and its own copies of folders outside the state folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .layout import DNS_ADDRESS, SERVICES, Layout, Node, host_addresses

_OWN = ("/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet")
"""Folders to which containerd, CNI and kubelets always write, whatever their settings."""
_RUN = ("lock", "netns", "sshd")
_NODE_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
"""Settings of the whole machine that a kubelet changes. Here it sees files that already have its values."""
_NETWORK_SETTINGS = {"ipv4/ip_forward": 1, "bridge/bridge-nf-call-iptables": 1}
"""Settings that belong to the network namespace."""


def isolate(layout: Layout, nodes: list[Node]) -> None:
    """Set up new mount and network namespaces. Process 1 of the namespaces calls it once."""
    for folder in _OWN:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _mount("-t", "tmpfs", "tmpfs", folder)
    for name in _RUN:
        Path("/run", name).mkdir()
    _names(layout)
    settings = layout.run / "sysctl"
    settings.mkdir()
    for name, value in _NODE_SETTINGS.items():
        shown = settings / name.replace("/", ".")
        shown.write_text(f"{value}\n")
        _mount("--bind", str(shown), f"/proc/sys/{name}")
    bridge = [f"address add {address} dev host0" for address in host_addresses(nodes)]
    lines = ["link set lo up", "link add host0 type bridge", *bridge, "link set host0 up"]
    # A service's address needs a route before it is translated into a pod's address.
    lines.append(f"route add {SERVICES} dev host0")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    for name, value in _NETWORK_SETTINGS.items():
        Path("/proc/sys/net", name).write_text(f"{value}\n")


def remove_empty_folders() -> None:
    """Remove, outside of the namespaces, the folders that were created only as mount points."""
    for folder in _OWN:
        if _mounted_over(folder):
            continue  # another cluster uses the folder and would lose its mount
        try:
            Path(folder).rmdir()
        except OSError:  # the folder has files from before
            pass


def _mounted_over(folder: str) -> bool:
    """Return whether a process in any namespace has a mount there."""
    for mounts in Path("/proc").glob("[0-9]*/mounts"):
        try:
            if f" {folder} " in mounts.read_text():
                return True
        except OSError:  # the process has ended meanwhile
            pass
    return False


def _names(layout: Layout) -> None:
    """Let processes in the namespaces resolve the names of the cluster's services."""
    shown = layout.run / "resolv.conf"
    shown.write_text(
        f"nameserver {DNS_ADDRESS}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n"
    )
    target = Path("/etc/resolv.conf").resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    _mount("--bind", str(shown), str(target))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
