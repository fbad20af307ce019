"""Watches that are cut, and a list that is old: what is seen late is seen in the end, and harms nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api_proxy import ApiProxy
from checks import CONVERGED, again, all_ready, history, one_owner_each, ready, uids, untouched
from cluster_stack import NAMESPACE, ClusterStack
from harness.cluster import Cluster
from hub_users import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("clean")]

PARTS = ("hub", "service")


@pytest.fixture(scope="module")
def proxy(
    stack: ClusterStack, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiProxy]:
    """The Hub and the service see the cluster through it; afterwards directly, as before."""
    with ApiProxy(cluster.layout.authority, tmp_path_factory.mktemp("proxy")) as proxy:
        for part in PARTS:
            stack.kill(part)
            _start(stack, proxy, part)
        stack.wait_until_up()
        try:
            yield proxy
        finally:
            stack.restart(*PARTS)


def _start(stack: ClusterStack, proxy: ApiProxy, part: str) -> None:
    stack.start_part(part, {"KUBECONFIG": str(proxy.kubeconfig(stack.kubeconfig(part)))})


def test_watches_are_cut_while_servers_start_and_end(stack: ClusterStack, proxy: ApiProxy) -> None:
    """8: a list says what the watch could not; nothing starts twice, and nobody is disturbed."""
    running = ready(stack, "bob", gpus=8)
    before = uids(stack, running["id"])
    with _cutting(proxy) as cut:
        record = stack.wait_state(stack.reserve("alice", gpus=8)["id"], "ready", "alice", CONVERGED)
        waiting = stack.reserve("carol", gpus=8)
        stack.end(record["id"])
        stack.wait_state(waiting["id"], "ready", "carol", CONVERGED)
    assert sum(cut) > 10, "the test is about watches that are cut"
    for mine in (record, waiting):
        assert not [e for e in history(stack, mine["id"], mine["owner"]) if "start_failed" in e["cause"]]
    one_owner_each(stack)
    untouched(stack, running, before)


@contextmanager
def _cutting(proxy: ApiProxy) -> Iterator[list[int]]:
    """Once a second all watches are cut, and the next can't go on where one ended."""
    cut: list[int] = []
    done = threading.Event()

    def work() -> None:
        while not done.wait(1):
            cut.append(proxy.cut(expired=1))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield cut
    finally:
        done.set()
        thread.join()


def test_watches_are_refused_for_a_while(stack: ClusterStack, proxy: ApiProxy) -> None:
    """An overloaded API server answers so; it is asked again, and nobody is deaf for ever."""
    running = ready(stack, "bob", gpus=2)
    before = uids(stack, running["id"])
    wait_for("nodes and pods of the service's, pods and events of the Hub's", lambda: proxy.watching == 4)
    with proxy.refusing():
        proxy.cut()
        # Only the service watches nodes, and it waits for a second in between.
        wait_for("refusals", lambda: proxy.refused["/api/v1/nodes"] >= 2)
    wait_for("all watches again", lambda: proxy.watching == 4, CONVERGED)
    untouched(stack, running, before)


def test_the_api_servers_cache_is_behind(stack: ClusterStack, proxy: ApiProxy, cluster: Cluster) -> None:
    """5, 8: an old list shows pods that are gone, and lacks some that run; neither is believed."""
    lost, running = all_ready(stack, alice={"gpus": 2}, bob={"gpus": 2})
    before, others = uids(stack, lost["id"]), uids(stack, running["id"])
    with proxy.behind():
        asked = stack.reserve("carol", gpus=4)
        wait_for("its pod", lambda: stack.pods(asked["id"]))
        started = uids(stack, asked["id"])
        name = next(iter(before))
        cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}").raise_for_status()
        wait_for("it gone", lambda: before[name] not in uids(stack, lost["id"]).values(), CONVERGED)
        # The list that it begins with is of a time before any of these servers.
        stack.kill("hub")
        _start(stack, proxy, "hub")
        wait_for("the Hub", lambda: stack.answers("hub"), CONVERGED)
        wait_for("Jupyter", lambda: stack.jupyter(running, "bob") == 200, CONVERGED)
    again(stack, lost, before)
    stack.wait_state(asked["id"], "ready", "carol", CONVERGED)
    assert uids(stack, asked["id"]) == started, "nothing was started twice"
    one_owner_each(stack)
    untouched(stack, running, others)
