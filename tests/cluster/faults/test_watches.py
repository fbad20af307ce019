"""Cut watches and outdated lists: the parts see every change in the end, and no server is affected."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api_proxy import ApiProxy
from checks import CONVERGED, again, all_ready, history, one_owner_each, ready, uids, untouched
from cluster_stack import ClusterStack
from cluster_users import NAMESPACE
from harness.cluster import Cluster
from hub_users import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("clean")]

PARTS = ("hub", "service")


@pytest.fixture(scope="module")
def proxy(
    stack: ClusterStack, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiProxy]:
    """Let the Hub and the service use the API through the proxy; afterwards directly again."""
    with ApiProxy(cluster.layout.authority, tmp_path_factory.mktemp("proxy")) as proxy:
        # This also applies to parts that are restarted by a test or after it.
        stack.lead = proxy.kubeconfig
        try:
            stack.restart(*PARTS)
            yield proxy
        finally:
            stack.lead = None
            stack.restart(*PARTS)


def test_watches_are_cut_while_servers_start_and_end(stack: ClusterStack, proxy: ApiProxy) -> None:
    """8: a list replaces the lost watch. No server starts twice, and no other server is affected."""
    running = ready(stack, "bob", gpus=8)
    before = uids(stack, running["id"])
    with _cutting(proxy) as cut:
        records = [stack.wait_state(stack.reserve("alice", gpus=8)["id"], "ready", "alice", CONVERGED)]
        # On a fast machine, few watches are cut while one server starts.
        while len(records) < 2 or sum(cut) <= 10:
            owner = ("alice", "carol")[len(records) % 2]
            waiting = stack.reserve(owner, gpus=8)
            stack.end(records[-1]["id"])
            records.append(stack.wait_state(waiting["id"], "ready", owner, CONVERGED))
    for mine in records:
        assert not [e for e in history(stack, mine["id"], mine["owner"]) if "start_failed" in e["cause"]]
    one_owner_each(stack)
    untouched(stack, running, before)


@contextmanager
def _cutting(proxy: ApiProxy) -> Iterator[list[int]]:
    """Cut all watches once a second. The next watch cannot resume where a cut one ended."""
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
    """An overloaded API server refuses watches. The parts retry until they succeed."""
    running = ready(stack, "bob", gpus=2)
    before = uids(stack, running["id"])
    _all_watch(proxy)
    with proxy.refusing():
        proxy.cut()
        # Only the service watches nodes. It waits a second between attempts.
        wait_for("refusals", lambda: proxy.refused["/api/v1/nodes"] >= 2)
    _all_watch(proxy)
    untouched(stack, running, before)


def _all_watch(proxy: ApiProxy) -> None:
    """Return whether all watches are open: nodes and pods (service), pods and events (Hub)."""
    try:
        wait_for("4 watches", lambda: proxy.watching == 4, CONVERGED)
    except AssertionError as error:
        raise AssertionError(f"{error}; there are {proxy.watching}") from None


def test_the_api_servers_cache_is_behind(stack: ClusterStack, proxy: ApiProxy, cluster: Cluster) -> None:
    """5, 8: an old list shows deleted pods and lacks new ones. The parts must trust neither."""
    lost, running = all_ready(stack, alice={"gpus": 2}, bob={"gpus": 2})
    before, others = uids(stack, lost["id"]), uids(stack, running["id"])
    with proxy.behind():
        asked = stack.reserve("carol", gpus=4)
        wait_for("its pod", lambda: stack.pods(asked["id"]))
        started = uids(stack, asked["id"])
        name = next(iter(before))
        cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}").raise_for_status()
        wait_for("it gone", lambda: before[name] not in uids(stack, lost["id"]).values(), CONVERGED)
        # Its first list is older than all these servers.
        stack.kill("hub")
        stack.start_part("hub")
        wait_for("the Hub", lambda: stack.answers("hub"), CONVERGED)
        wait_for("Jupyter", lambda: stack.jupyter(running, "bob") == 200, CONVERGED)
    again(stack, lost, before)
    stack.wait_state(asked["id"], "ready", "carol", CONVERGED)
    assert uids(stack, asked["id"]) == started, "nothing was started twice"
    one_owner_each(stack)
    untouched(stack, running, others)
