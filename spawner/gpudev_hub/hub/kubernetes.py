"""Servers as pods: a subclass of KubeSpawner that creates one pod per rank, as the gate answers.

KubeSpawner provides the API's client, the watches that all spawners share, the volumes of homes, and the
events on the spawn page. Two things differ. The gate decides whether and where a server starts. Existing pods
of the same attempt are adopted, not deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, Final

import aiohttp
from kubernetes_asyncio.client import ApiException, NetworkingV1Api
from kubespawner import KubeSpawner

from gpudev_hub.cluster.kube_pods import PodFacts, pod_facts
from gpudev_hub.cluster.labels import JUPYTER_PORT, REQUEST_TIMEOUT, object_name, selector
from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.core.gate import Launch
from gpudev_hub.state import listens

from . import pods
from .gate import Told
from .gated import Gated, NotStarted
from .kube_calls import AWAY, KubeCalls

LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at the watched pods, or at a JupyterLab that is starting."""
LIST_AGAIN: Final = 1.0
"""Seconds between two lists, while the watch does not show all pods."""
ADDRESS_AGAIN: Final = 1.0
"""Seconds between two looks for a pod's address."""
POLL_PATIENCE: Final = 15.0
"""Seconds that a poll waits for the API before the state is unknown."""
CREATE_TRIES: Final = 3
FORBIDDEN_TRIES: Final = 5
FORBIDDEN_PAUSE: Final = 1.0
"""Seconds."""


class ApiAway(Told):
    """The Kubernetes API did not answer. The start has not failed, and is tried again."""

    reason, status_code = "api_away", 503


class GpuSpawner(Gated, KubeSpawner):
    """Creates and deletes pods. The gate decides, the service watches, and the pod ends its processes."""

    realm = "hub"
    cluster: ClassVar[ClusterSettings]

    _pvc_exists: bool

    @property
    def _calls(self) -> KubeCalls:
        return KubeCalls(self.api, self.namespace)

    # Starting

    async def _start(self) -> str:
        """Ask the gate, then adopt or create the pods. Returns the address of JupyterLab."""
        launch = await self.admitted()
        self.attempt = launch.attempt
        self.pod_name = object_name(launch.id, launch.attempt)
        made: list[dict[str, Any]] = []
        try:
            return await self._launch(launch, made)
        except NotStarted as error:
            # The service got "pending" after ten seconds, and does not wait for the Hub's answer any more.
            await self.gate.failed(launch.id, launch.attempt, error.jupyterhub_message)
            # Delete only the pods that this call created. Nobody was let in yet.
            await self._calls.delete_pods([pod["metadata"] for pod in made])
            raise

    async def _launch(self, launch: Launch, made: list[dict[str, Any]]) -> str:
        patience = asyncio.timeout(self.start_timeout)
        try:
            async with patience:
                await self._build_once_allowed(launch, made)
                await self.gate.started(launch.id, launch.attempt)
                pod = await self._running(launch)
                url = f"http://{pod.ip}:{JUPYTER_PORT}"
                await self._answering(launch, url)
                return url
        except ApiException as error:
            raise _refused(launch, error) from error
        except AWAY as error:
            if patience.expired():
                raise NotStarted(
                    f"server {launch.id} did not answer within {self.start_timeout} s"
                ) from error
            raise ApiAway(f"the Kubernetes API does not answer: {type(error).__name__} {error}") from error

    async def _build_once_allowed(self, launch: Launch, made: list[dict[str, Any]]) -> None:
        """Repeat ``_build`` while it is forbidden: a starting API server does not know all rights."""
        for left in reversed(range(FORBIDDEN_TRIES)):
            try:
                await self._watches()
                await self._build(launch, made)
            except ApiException as error:
                if error.status not in (401, 403) or not left:
                    raise
                await asyncio.sleep(FORBIDDEN_PAUSE)
            else:
                return

    async def _build(self, launch: Launch, made: list[dict[str, Any]]) -> None:
        """Create what does not exist yet; add the created pods to ``made``."""
        there = await self._calls.pods(selector(launch.id))
        await self._forget_ended(launch, there)
        ranks = len(launch.allocation)
        mine = {
            facts.rank: pod
            for pod in there
            if (facts := self._facts(pod)).server == (launch.id, launch.attempt) and not facts.gone
        }
        if any(self._facts(pod).leaving for pod in mine.values()):
            raise ApiAway(f"a pod of server {launch.id} is being deleted")
        if 0 in mine:
            # Adopt the running server, with the Hub token that it was started with.
            self.log.info("server %s of attempt %d already exists: adopted", launch.id, launch.attempt)
            name = mine[0]["metadata"]["name"]
            found = await self._calls.call(self.api.read_namespaced_secret, name=name)
            self.api_token = pods.token_in(found)
        else:
            await self._ensure_home()
            await self._make_secret(launch)
            mine[0] = await self._make_pod(launch, 0, None)
            made.append(mine[0])
        owner = pods.owner_reference(mine[0])
        missing = [rank for rank in range(1, ranks) if rank not in mine]
        if ranks > 1:
            # Also for an adopted server: an earlier version may have started it without a policy.
            network = NetworkingV1Api(self.api.api_client)
            for create, body in (
                (self.api.create_namespaced_service, pods.service(launch, owner)),
                (network.create_namespaced_network_policy, pods.network_policy(launch, owner)),
            ):
                await self._calls.create(create, body, exists_is_fine=True)
        made += await asyncio.gather(*(self._make_pod(launch, rank, owner) for rank in missing))
        patch = {"metadata": {"ownerReferences": [owner]}}
        await self._calls.call(self.api.patch_namespaced_secret, name=self.pod_name, body=patch)

    async def _make_secret(self, launch: Launch) -> None:
        """Create the Secret. An existing one of this attempt has no pod any more, and is replaced."""
        env = {name: value for name, value in self.get_env().items() if value is not None}
        body = pods.secret(launch, self.cluster, env, [*self.cmd, *self.get_args()])
        if not await self._calls.create(self.api.create_namespaced_secret, body, exists_is_fine=True):
            await self._calls.call(self.api.delete_namespaced_secret, name=self.pod_name)
            await self._calls.create(self.api.create_namespaced_secret, body)

    async def _make_pod(self, launch: Launch, rank: int, owner: Mapping[str, Any] | None) -> dict[str, Any]:
        body = pods.pod(launch, rank, self.cluster, self.pvc_name, owner)
        created = await self._calls.create(self.api.create_namespaced_pod, body, exists_is_fine=True)
        if created is not None:
            return created
        # It exists: adopt it if it belongs to this attempt, and never delete it.
        name = body["metadata"]["name"]
        found: dict[str, Any] = await self._calls.call(self.api.read_namespaced_pod, name=name)
        facts = self._facts(found)
        if facts.server != (launch.id, launch.attempt) or facts.rank != rank or facts.leaving or facts.gone:
            raise NotStarted(f"another pod called {name} exists, which does not belong to this server")
        return found

    async def _ensure_home(self) -> None:
        if self._pvc_exists:
            return
        for _ in range(CREATE_TRIES):
            if await self._make_create_pvc_request(self.get_pvc_manifest(), REQUEST_TIMEOUT):
                self._pvc_exists = True
                return
        raise ApiAway(f"the volume {self.pvc_name} for the home was not created in time")

    async def _forget_ended(self, launch: Launch, there: list[dict[str, Any]]) -> None:
        """Delete the pods of this reservation that have ended, so that their names can be used again."""
        ended = [pod["metadata"] for pod in there if self._facts(pod).gone]
        if not ended:
            return
        await self._calls.delete_pods(ended)
        names = {metadata["uid"] for metadata in ended}
        async with asyncio.timeout(REQUEST_TIMEOUT):
            while True:
                left = {pod["metadata"]["uid"] for pod in await self._calls.pods(selector(launch.id))}
                if not left & names:
                    return
                await asyncio.sleep(LOOK_AGAIN)

    async def _running(self, launch: Launch) -> PodFacts:
        """Wait until all ranks run, and return rank 0's pod. Raises ``NotStarted`` if one cannot run."""
        loop = asyncio.get_running_loop()
        stuck_since: float | None = None
        listed = loop.time()
        while True:
            await self._watches()
            ranks = [
                facts
                for pod in list(self.pod_reflector.pods.values())
                if (facts := self._facts(pod)).server == (launch.id, launch.attempt)
            ]
            ended = [f"{pod.name}: {pod.end.reason}" for pod in ranks if pod.gone and pod.end is not None]
            if ended:
                raise NotStarted(f"server {launch.id} ended while it started: {'; '.join(ended)}")
            waiting = [f"{pod.name}: {pod.waiting}" for pod in ranks if pod.waiting]
            now = loop.time()
            if len(ranks) < len(launch.allocation) and now - listed > LIST_AGAIN:
                listed = now
                await self._all_there(launch)
            stuck_since = (stuck_since or now) if waiting else None
            if stuck_since is not None and now - stuck_since > self.cluster.stuck_seconds:
                raise NotStarted(f"server {launch.id} cannot start: {'; '.join(waiting)}")
            up = {pod.rank: pod for pod in ranks if pod.running and pod.ip}
            if len(up) == len(launch.allocation):
                return up[0]
            await asyncio.sleep(LOOK_AGAIN)

    async def _all_there(self, launch: Launch) -> None:
        """Raise ``NotStarted`` if a created pod is gone, by a list: the watch may be out of date."""
        there = await self._calls.pods(selector(launch.id, launch.attempt))
        ranks = {self._facts(pod).rank for pod in there}
        if len(ranks) < len(launch.allocation):
            raise NotStarted(f"server {launch.id} cannot start: a pod of it was deleted")

    async def _answering(self, launch: Launch, url: str) -> None:
        """Return once JupyterLab answers with any status; the Hub checks the answer itself."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                with suppress(*AWAY):
                    async with session.get(f"{url}{self.server.base_url}api", allow_redirects=False):
                        return
                await self._running(launch)
                await asyncio.sleep(LOOK_AGAIN)

    # Looking

    async def look(self) -> int | None:
        if not self.name:
            return 0
        try:
            async with asyncio.timeout(POLL_PATIENCE):
                await self._watches()
                ranks = await self._find_ranks()
        except Exception:
            self.log.exception("the state of server %s is unknown now", self._log_name)
            return None
        head = ranks.get(0)
        there = next((facts for facts in ranks.values() if not facts.gone), None)
        if there is not None:
            # Also while only other ranks are left: the Hub calls `stop` only for a server that runs.
            assert there.server is not None
            self.attempt = there.server[1]
            self.pod_name = object_name(*there.server)
            return None
        if head is None:
            if self._stop_future is not None:
                return None  # the Hub stops only running servers, and this start has created no pod yet
            return 1 if self.attempt else 0
        return 0 if head.end is not None and head.end.by_user else 1

    async def answers(self) -> bool | None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                head = (await self._find_ranks()).get(0)
                if head is None or head.gone:
                    return None
                if head.ip is None:
                    return False
                return await listens(head.ip, JUPYTER_PORT)
        except ApiException:
            return True  # unknown, as for `look`
        except AWAY:
            return False

    async def get_url(self) -> str:
        """Return the server's address from its pod, because a start may have been interrupted.

        Without a pod, or if the API does not answer, return the address that the Hub knows.
        """
        told = str(self.server.url)
        try:
            async with asyncio.timeout(self.start_timeout):
                while True:
                    head = (await self._find_ranks()).get(0)
                    if head is None or head.gone:
                        return told
                    if head.ip is not None:
                        return f"http://{head.ip}:{JUPYTER_PORT}{self.server.base_url}"
                    await asyncio.sleep(ADDRESS_AGAIN)
        except (ApiException, *AWAY) as error:
            self.log.warning(
                "no address of server %s is known: %s %s", self.name, type(error).__name__, error
            )
            return told

    async def _find_ranks(self) -> dict[int, PodFacts]:
        """Return the latest attempt's pods by rank.

        The watch may be out of date, so a list decides whether rank 0 has no pod, or has ended.
        """
        watch = self.pod_reflector
        found = self._ranks(list(watch.pods.values())) if watch is not None else {}
        if 0 not in found or found[0].gone:
            found = self._ranks(await self._calls.pods(selector(self.name)))
        return found

    def _ranks(self, found: list[dict[str, Any]]) -> dict[int, PodFacts]:
        """Return the latest attempt's pods by rank, of these pods."""
        all_facts = [self._facts(pod) for pod in found]
        mine = [facts for facts in all_facts if facts.server is not None and facts.server[0] == self.name]
        latest = max((facts.server for facts in mine if facts.server is not None), default=None)
        return {facts.rank: facts for facts in mine if facts.server == latest}

    def _facts(self, pod: Mapping[str, Any]) -> PodFacts:
        facts = pod_facts(pod, self.namespace)
        return facts or PodFacts(pod["metadata"]["name"], pod["metadata"]["uid"], None, 0, None)

    async def _watches(self) -> None:
        """Start the watches that all spawners share, again if they have ended.

        A reflector ends for good after about a minute without the API, without an error.
        """
        for kind, start in (("pods", self._start_watching_pods), ("events", self._start_watching_events)):
            if kind == "events" and not self.events_enabled:
                continue
            reflector = type(self).reflectors.get(self._get_reflector_key(kind))
            dead = reflector is not None and (reflector.watch_task is None or reflector.watch_task.done())
            loaded = reflector is not None and reflector.first_load_future.done()
            # All spawners wait for one future: a timeout of one must not cancel it for the others.
            await asyncio.shield(start(replace=dead and loaded))

    # Stopping

    async def stop(self, now: bool = False) -> None:  # noqa: ARG002 (a grace of none would lie about the end)
        """Delete the attempt's pods if the service allows it, and wait until they are gone."""
        if not self.attempt:
            await self.poll()
        # Ask also if a start was interrupted before it knew its attempt: the service records the stop.
        if not await self.may_stop() or not self.attempt:
            return
        ours = selector(self.name, self.attempt)
        try:
            async with asyncio.timeout(self.cluster.stop_seconds):
                while found := await self._calls.pods(ours):
                    leaving = [pod for pod in found if self._facts(pod).leaving]
                    await self._calls.delete_pods([pod["metadata"] for pod in found if pod not in leaving])
                    await asyncio.sleep(LOOK_AGAIN)
        except (ApiException, *AWAY) as error:
            # The Hub treats the server as stopped in any case; the service looks for itself.
            self.log.warning("server %s may still run: %s %s", self.name, type(error).__name__, error)


def _refused(launch: Launch, error: ApiException) -> Told:
    """Return the error for a refusal by the API: a failed start if repeating it cannot help."""
    message = f"the Kubernetes API answered {error.status} for server {launch.id}: {error.reason}"
    return NotStarted(message) if error.status in (400, 401, 403, 422) else ApiAway(message)
