"""Turns Kubernetes pods into observations of servers. Pure: API objects in, sights out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from gpudev_hub.core.model import SECOND, Millis, Presence
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.server.record import TOLD

from .labels import (
    ATTEMPT,
    COMPONENT,
    CONTAINER,
    GPU,
    JUPYTER_PORT,
    POLICY_PROBE,
    RANK,
    RANKS,
    RESERVATION,
    SSHD_PORT,
)

_ENDED = ("Succeeded", "Failed")
_NEVER_THERE = "ContainerStatusUnknown"
"""The reason that the kubelet gives for the end of a container that it never started."""
_BY_ITS_NODE = (
    f"{TOLD}, but not by gpudev (usual reasons: it wrote more to the local disk than its share, "
    "or its node is shutting down)"
)
"""The usual reasons, because a kubelet does not report the eviction of a pod that ends in time."""
_COMING = ("ContainerCreating", "PodInitializing")
"""Reasons for waiting that are normal and need no message."""


@dataclass(frozen=True, slots=True)
class End:
    """How a container ended."""

    reason: str
    by_user: bool = False


@dataclass(frozen=True, slots=True)
class PodFacts:
    """The relevant facts of a pod that holds GPUs, runs a server, or is a policy probe."""

    name: str
    uid: str
    node: str | None
    gpus: int
    """GPUs that all its containers request together."""
    server: tuple[str, int] | None
    """(reservation, attempt); ``None`` for a probe or a pod that is not part of gpudev."""
    proves: bool = False
    """Whether it is a Ready policy probe, which shows that its node enforces network policies."""
    rank: int = 0
    ranks: int = 1
    over: bool = False
    """Whether its phase is final, so that the scheduler gives its GPUs to other pods."""
    gone: bool = False
    """Whether its processes have certainly ended, or never started."""
    running: bool = False
    ip: str | None = None
    waiting: str = ""
    """Why it does not run yet, if people should know the reason."""
    end: End | None = None
    leaving: bool = False
    """Whether it is being deleted."""
    over_since: Millis | None = None


def pod_facts(pod: Mapping[str, Any], namespace: str) -> PodFacts | None:
    """Return the facts of a pod object; ``None`` if it is not relevant. Servers are in ``namespace``."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    gpus = _gpus(spec)
    ours = metadata["namespace"] == namespace
    server = _server(metadata) if ours else None
    probe = ours and server is None and metadata.get("labels", {}).get(COMPONENT) == POLICY_PROBE
    if server is None and gpus == 0 and not probe:
        return None
    over, ready = status.get("phase") in _ENDED, _condition(status, "Ready").get("status") == "True"
    facts = PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        node=spec.get("nodeName"),
        gpus=gpus,
        server=None,
        proves=probe and ready and "deletionTimestamp" not in metadata,
        over=over,
    )
    if server is None:
        return facts
    labels = metadata["labels"]
    container = _container(status)
    state = container.get("state", {})
    return replace(
        facts,
        server=server,
        rank=int(labels.get(RANK, 0)),
        ranks=int(labels.get(RANKS, 1)),
        gone=over and "running" not in state,
        running="running" in state,
        ip=status.get("podIP"),
        waiting=_waiting(status, state),
        end=_end(status, state) if over else None,
        leaving="deletionTimestamp" in metadata,
        over_since=_finished(state) if over else None,
    )


def foreign_gpus(pods: Iterable[PodFacts]) -> dict[str, int]:
    """Return the GPUs by node that pods other than servers hold."""
    held: dict[str, int] = {}
    for pod in pods:
        if pod.server is None and pod.node is not None and not pod.over:
            held[pod.node] = held.get(pod.node, 0) + pod.gpus
    return held


def proven_nodes(pods: Iterable[PodFacts]) -> frozenset[str]:
    """Return the nodes on which a policy probe is Ready."""
    return frozenset(pod.node for pod in pods if pod.proves and pod.node is not None)


def sight_of(
    id: str, attempt: int, pods: Sequence[PodFacts], silent: Collection[str], nodes: Sequence[str] = ()
) -> ServerSight:
    """Return what the pods of one attempt show.

    ``silent`` has the nodes whose kubelet does not report: the state of their pods is unknown. ``nodes`` has
    the nodes of the attempt's ranks, as far as they are known.
    """
    unheard = sorted({*(pod.node for pod in pods if pod.node and not pod.gone), *nodes} & {*silent})
    if unheard:
        return ServerSight(id, attempt, Presence.UNKNOWN, detail=f"no reports from {' and '.join(unheard)}")
    by_rank = {pod.rank: pod for pod in pods}
    ranks = max((pod.ranks for pod in pods), default=0)
    there = {rank: pod for rank, pod in by_rank.items() if not pod.gone}
    head = by_rank.get(0)
    first = there.get(0)
    return ServerSight(
        id,
        attempt,
        Presence.PRESENT if there else Presence.ABSENT,
        complete=bool(there) and len(there) == ranks,
        forming=len(by_rank) < ranks and len(there) == len(by_rank),
        detail=_told(by_rank, ranks),
        user_stopped=head is not None and head.end is not None and head.end.by_user,
        jupyter=(first.ip, JUPYTER_PORT) if first is not None and first.ip and first.running else None,
        sshd={rank: (pod.ip, SSHD_PORT) for rank, pod in sorted(there.items()) if pod.ip and pod.running},
    )


def _told(by_rank: Mapping[int, PodFacts], ranks: int) -> str:
    """Return the texts about the pods that people should know, each text once."""
    told: dict[str, None] = {}
    for rank, pod in sorted(by_rank.items()):
        text = pod.end.reason if pod.end is not None else pod.waiting
        if pod.leaving and text.startswith((TOLD, _NEVER_THERE)):
            continue  # its deletion, perhaps before its container existed, is not a reason
        if text.startswith(TOLD):
            text = _BY_ITS_NODE
        if text:
            told[f"rank {rank}: {text}" if ranks > 1 else text] = None
    return "; ".join(told)


def _server(metadata: Mapping[str, Any]) -> tuple[str, int] | None:
    labels = metadata.get("labels", {})
    reservation, attempt = labels.get(RESERVATION), labels.get(ATTEMPT, "")
    return (reservation, int(attempt)) if reservation and attempt.isdecimal() else None


def _gpus(spec: Mapping[str, Any]) -> int:
    return sum(
        int(container.get("resources", {}).get("requests", {}).get(GPU, 0))
        for container in spec.get("containers", ())
    )


def _container(status: Mapping[str, Any]) -> Mapping[str, Any]:
    found = (one for one in status.get("containerStatuses", ()) if one["name"] == CONTAINER)
    return next(found, {})


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((entry for entry in status.get("conditions", ()) if entry["type"] == kind), {})


def _waiting(status: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    waiting = state.get("waiting")
    if waiting is not None and waiting.get("reason") not in _COMING:
        return _join(waiting)
    scheduled = _condition(status, "PodScheduled")
    return _join(scheduled) if scheduled.get("status") == "False" else ""


def _end(status: Mapping[str, Any], state: Mapping[str, Any]) -> End:
    """Return the server's own report if it left one, else the reason that Kubernetes gives."""
    if status.get("reason") == "Evicted":
        # The server's own report, if any, only says that it was asked to end. The eviction is the reason.
        return End(_join(status))
    terminated = state.get("terminated", {})
    message = terminated.get("message", "")
    if terminated.get("reason") == "OOMKilled":
        return End("it used more memory than its share and was killed (OOMKilled)")
    try:
        said = json.loads(message)
        return End(str(said["reason"]), bool(said["by_user"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # users can write there, too
    if terminated:
        code = terminated.get("exitCode")
        return End(_join(terminated) or f"it ended with exit code {code}")
    return End(_join(status) or "its pod failed")


def _finished(state: Mapping[str, Any]) -> Millis | None:
    at = state.get("terminated", {}).get("finishedAt")
    return round(datetime.fromisoformat(at).timestamp() * SECOND) if at else None


def _join(said: Mapping[str, Any]) -> str:
    """Return the reason and the message of an API object as one text."""
    return ": ".join(part.strip() for part in (said.get("reason"), said.get("message")) if part)
