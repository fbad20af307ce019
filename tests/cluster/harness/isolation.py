"""What the cluster has of its own: addresses, and whatever its parts would write outside the state folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .layout import DNS_ADDRESS, SERVICES, Layout, Node, host_addresses

_OWN = ("/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet")
"""Folders that containerd, CNI and kubelets write to, whatever they are told."""
_RUN = ("lock", "netns", "sshd")
_NODE_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
"""What a kubelet sets for the whole machine; here it is shown files that say so already."""
_NETWORK_SETTINGS = {"ipv4/ip_forward": 1, "bridge/bridge-nf-call-iptables": 1}
"""These belong to the network namespace."""


def isolate(layout: Layout, nodes: list[Node]) -> None:
    """Call once, as process 1 of new mount and network namespaces."""
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
    # A service's address must have a route before it is turned into a pod's.
    lines.append(f"route add {SERVICES} dev host0")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    for name, value in _NETWORK_SETTINGS.items():
        Path("/proc/sys/net", name).write_text(f"{value}\n")


def remove_empty_folders() -> None:
    """Afterwards, outside: folders that were made only to be mounted over."""
    for folder in _OWN:
        if _mounted_over(folder):
            continue  # another cluster's, which would lose its mount with the folder
        try:
            Path(folder).rmdir()
        except OSError:  # it has something in it, as it had before
            pass


def _mounted_over(folder: str) -> bool:
    """Whether any process, whatever its namespaces, has something mounted there."""
    for mounts in Path("/proc").glob("[0-9]*/mounts"):
        try:
            if f" {folder} " in mounts.read_text():
                return True
        except OSError:  # it has ended meanwhile
            pass
    return False


def _names(layout: Layout) -> None:
    """Processes beside the cluster find its services by name."""
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
