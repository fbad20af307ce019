"""Servers as pods: reserved, opened, entered, ended."""

from __future__ import annotations

from cluster_stack import ClusterStack


def test_a_server_of_two_gpus(stack: ClusterStack) -> None:
    record = stack.reserve(gpus=2)
    ready = stack.wait_state(record["id"], "ready")
    assert stack.jupyter(ready) == 200
    (pod,) = stack.pods(record["id"])
    assert pod["spec"]["nodeName"] == ready["allocation"][0]["node"]
    stack.end(record["id"])
    assert stack.pods(record["id"]) == []
