"""Checks of an installation: what is missing or wrong, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gpudev_hub.core.model import HOUR, SECOND, Millis, Node, NodeStatus
from gpudev_hub.core.policy import PoolSettings
from gpudev_hub.core.words import counted, duration, gpus, listing, moment, node_state

CLOCK_TOLERANCE: Final[Millis] = 60 * SECOND
ENDS_SOON: Final[Millis] = 24 * HOUR
BASTIONS: Final = 2
"""Fewest pods of the bastion: one may be replaced, and connections end with their pod."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. ``todo`` is empty if all is well."""

    id: str
    """A stable id for programs."""
    name: str
    found: str
    todo: str = ""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.todo


@dataclass(frozen=True, slots=True)
class PodFact:
    """A pod of the installation."""

    component: str
    node: str | None
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was observed at one time; facts are missing for parts that did not answer."""

    now: Millis
    pools: tuple[PoolSettings, ...]
    policy_probe: bool
    """Whether the settings ask for policy probes."""
    bastion: bool
    """Whether the settings name a bastion."""
    store: str = ""
    """Why the database does not answer; empty: it does."""
    backups: bool | str = True
    """Whether point-in-time recovery is on, or why that cannot be read."""
    hub: str = ""
    """Why the Hub does not answer."""
    cluster: str = ""
    """Why the Kubernetes API does not answer."""
    cluster_time: Millis | None = None
    """The time of the Kubernetes API."""
    nodes: tuple[Node, ...] = ()
    efa: Mapping[str, int] = field(default_factory=dict)
    """Allocatable EFA interfaces by node."""
    pods: tuple[PodFact, ...] = ()
    github: tuple[int, tuple[str, ...]] = (0, ())
    """How many facts about GitHub were checked, and the names of those that do not hold."""


Said = tuple[str, str]
"""What was found, and what to do: empty if all is well."""


def examine(facts: Facts) -> list[Finding]:
    """Return all findings, in the order in which faults are best corrected."""
    findings = []
    for key, name, needs_cluster, check in CHECKS:
        if needs_cluster and facts.cluster:
            said = ("not checked: the Kubernetes API does not answer", "Correct that first.")
        else:
            said = check(facts)
        findings.append(Finding(key, name, *said))
    return findings


def _store(facts: Facts) -> Said:
    if facts.store:
        todo = "Check the table's name and region in the settings, and the rights of the service's role."
        return facts.store, todo
    return "it answers", ""


def _backups(facts: Facts) -> Said:
    if isinstance(facts.backups, str):
        return f"it cannot be read ({facts.backups}); look with aws dynamodb describe-continuous-backups", ""
    if facts.backups:
        return "it is on", ""
    return "it is off", "Turn it on: aws dynamodb update-continuous-backups (docs/dynamodb.md)."


def _hub(facts: Facts) -> Said:
    if facts.hub:
        todo = "Check the pod of the Hub, hub_api in the settings, and that both have the same service-token."
        return facts.hub, todo
    return "it answers, and knows the service", ""


def _cluster(facts: Facts) -> Said:
    if facts.cluster:
        return facts.cluster, "Check the rights of the account gpudev-service, and its network policy."
    return "it answers", ""


def _clock(facts: Facts) -> Said:
    if facts.cluster_time is None:
        return "the Kubernetes API does not say the time", "Check that the API server sends a Date header."
    ahead = facts.now - facts.cluster_time
    if abs(ahead) <= CLOCK_TOLERANCE:
        return "as at the Kubernetes API", ""
    where = "ahead of" if ahead > 0 else "behind"
    return f"{duration(abs(ahead))} {where} the Kubernetes API", "Set the clock of the service's node (NTP)."


def _nodes(facts: Facts) -> Said:
    counts = {pool.name: _of(facts, pool) for pool in facts.pools}
    empty = [name for name, nodes in counts.items() if not nodes]
    away = [node_state(n.name, n) for _, n in _all_nodes(facts) if n.status is not NodeStatus.UP]
    small = [
        f"{pool.name} has {len(counts[pool.name])} for reservations of {pool.max_gang}"
        for pool in facts.pools
        if counts[pool.name] and len(counts[pool.name]) < pool.max_gang
    ]
    if empty:
        todo = "Start nodes with the label gpudev/pool, or remove the pool from the settings."
        return f"no node in {listing(empty, 'and')}", todo
    if away:
        todo = "Nothing new starts there. Uncordon or repair these nodes (gpu-dev node list)."
        return "; ".join(away), todo
    if small:
        return "; ".join(small), "Add nodes, or set max_gang of the pool to what it has."
    return ", ".join(f"{counted(len(nodes), 'node')} in {name}" for name, nodes in counts.items()), ""


def _gpus(facts: Facts) -> Said:
    wrong = [
        f"{node.name} offers {node.gpus} of {gpus(pool.gpus_per_node)}"
        for pool, node in _all_nodes(facts)
        if node.gpus != pool.gpus_per_node
    ]
    if wrong:
        todo = "Check the NVIDIA device plugin, other pods with GPUs there, and gpus_per_node of the pool."
        return "; ".join(wrong), todo
    return "each node offers what its pool says", ""


def _efa(facts: Facts) -> Said:
    wrong = []
    for pool in facts.pools:
        found = {node.name: facts.efa.get(node.name, 0) for node in _of(facts, pool)}
        most = max(found.values(), default=0)
        wrong += [f"{name} offers {count} of {most}" for name, count in found.items() if count != most]
    if wrong:
        todo = "Check the EFA device plugin there, and the network cards of the launch template."
        return "; ".join(wrong), todo
    if not any(facts.efa.values()):
        return "no node has EFA", ""
    return "the nodes of a pool offer the same number of interfaces", ""


def _probes(facts: Facts) -> Said:
    if not facts.policy_probe:
        return "nothing shows that network policies are enforced", "Set policy_probe to true in the settings."
    failing = [node.name for _, node in _all_nodes(facts) if node.unproven]
    if failing:
        todo = "See what the probe there logs: docs/kubernetes.md, Policy probe."
        return f"network policies are not proven to be enforced on {listing(failing, 'and')}", todo
    return "network policies are enforced on each node", ""


def _prepull(facts: Facts) -> Said:
    there = {pod.node for pod in facts.pods if pod.component == "prepull" and pod.ready}
    missing = [node.name for _, node in _all_nodes(facts) if node.name not in there]
    if missing:
        todo = "Wait for the DaemonSet gpudev-prepull, or see why an image cannot be pulled."
        return f"images are not yet on {listing(missing, 'and')}", todo
    return "the images are on each node", ""


def _bastion(facts: Facts) -> Said:
    if not facts.bastion:
        todo = "Set bastion.host in the settings, or users cannot connect from outside."
        return "the settings name none", todo
    ready = sum(pod.component == "bastion" and pod.ready for pod in facts.pods)
    if ready < BASTIONS:
        todo = "See kubectl -n gpudev describe pods -l app.kubernetes.io/component=bastion."
        return f"{ready} of at least {BASTIONS} pods are ready", todo
    return f"{ready} pods are ready", ""


def _ends(facts: Facts) -> Said:
    ending = [
        f"{node.name} at {moment(node.until, facts.now)}"
        for _, node in _all_nodes(facts)
        if node.until is not None and node.until < facts.now + ENDS_SOON
    ]
    if ending:
        return f"ending within 24 h: {', '.join(ending)}", "Extend the capacity block, or tell users."
    return "no node ends within 24 h", ""


def _github(facts: Facts) -> Said:
    count, failed = facts.github
    if failed:
        found = f"{len(failed)} of {counted(count, 'fact')} do not hold: {', '.join(failed)}"
        return found, "Run gpu-dev admin github-check."
    return f"all {count} facts hold", ""


def _of(facts: Facts, pool: PoolSettings) -> list[Node]:
    return sorted((node for node in facts.nodes if node.pool == pool.name), key=lambda node: node.name)


def _all_nodes(facts: Facts) -> list[tuple[PoolSettings, Node]]:
    """Return the nodes of all pools, with their pools."""
    return [(pool, node) for pool in facts.pools for node in _of(facts, pool)]


CHECKS: Final[tuple[tuple[str, str, bool, Callable[[Facts], Said]], ...]] = (
    ("store", "database", False, _store),
    ("backups", "point-in-time recovery", False, _backups),
    ("hub", "JupyterHub", False, _hub),
    ("cluster", "Kubernetes API", False, _cluster),
    ("clock", "clock", True, _clock),
    ("nodes", "nodes", True, _nodes),
    ("gpus", "GPUs", True, _gpus),
    ("efa", "EFA", True, _efa),
    ("probes", "network policies", True, _probes),
    ("prepull", "image pre-pull", True, _prepull),
    ("bastion", "SSH bastion", True, _bastion),
    ("ends", "ends of nodes", True, _ends),
    ("github", "GitHub", False, _github),
)
"""Id, name, whether it needs the Kubernetes API, and the check."""
