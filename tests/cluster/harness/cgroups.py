"""Creates the cgroups of the nodes' pods before kubelets start, and removes them after the cluster has ended.

Cgroups are the only part of the cluster that does not disappear with its namespaces.
"""

from __future__ import annotations

import os
from pathlib import Path

from .layout import Layout, Node
from .waiting import wait_for


def hierarchies() -> dict[Path, str]:
    """Return every mounted hierarchy with its type (``cgroup`` is version 1, ``cgroup2`` version 2)."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            found[Path(target)] = kind
    return found


def make_cgroups(layout: Layout, nodes: list[Node]) -> None:
    """Create ``/NAME/node-1`` … in every hierarchy, because the kubelet's ``cgroupRoot`` must exist."""
    for root, kind in hierarchies().items():
        for path in (root / layout.cgroup, *(root / layout.cgroup / node.name for node in nodes)):
            if kind == "cgroup2":
                _hand_down(path.parent)
            path.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if kind == "cgroup" and (path / name).exists():
                    (path / name).write_text((path.parent / name).read_text())


def _hand_down(folder: Path) -> None:
    """Enable controllers for the children of a folder. Version 2 needs that in each folder."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def remove_cgroups(layout: Layout) -> None:
    """Remove the cgroups of an ended cluster. Raises ``TimedOutError`` if a process still runs in them."""
    roots = [root / layout.cgroup for root in hierarchies()]
    wait_for(
        f"nothing runs in the cgroups /{layout.cgroup} any more",
        lambda: all(_removed(r) for r in roots),
        20,
    )


def _removed(root: Path) -> bool:
    for folder, _, _ in os.walk(root, topdown=False):
        try:
            Path(folder).rmdir()
        except OSError:
            return False
    return not root.exists()
