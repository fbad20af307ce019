"""Calls to the Kubernetes API in the servers' namespace, with objects as the API writes them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from kubernetes_asyncio.client import ApiException, V1DeleteOptions, V1Preconditions

from gpudev_hub.cluster.labels import REQUEST_TIMEOUT

AWAY: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""What a call raises without an answer. An error as the answer raises ``ApiException``."""


@dataclass(frozen=True)
class KubeCalls:
    """Calls in a namespace through a ``CoreV1Api``. All raise ``ApiException`` and ``AWAY``."""

    api: Any
    namespace: str

    async def pods(self, labels: str) -> list[dict[str, Any]]:
        """Return the pods that match a label selector."""
        answer = await self.call(self.api.list_namespaced_pod, label_selector=labels)
        items: list[dict[str, Any]] = answer["items"]
        return items

    async def create(
        self, method: Any, body: Mapping[str, Any], *, exists_is_fine: bool = False
    ) -> dict[str, Any] | None:
        """Create an object; ``None`` if one with its name exists and that is fine.

        After a timeout, try once more: names are unique, so this creates no second object.
        """
        for last in (False, True):
            try:
                created: dict[str, Any] = await self.call(method, body=body)
                return created
            except ApiException as error:
                if error.status == 409 and (exists_is_fine or last):
                    return None
                raise
            except TimeoutError:
                if last:
                    raise
        return None

    async def delete_pods(self, found: Iterable[Mapping[str, Any]]) -> None:
        """Delete the pods with this metadata. A new pod with the same name is not deleted."""
        await asyncio.gather(*(self._delete_pod(metadata) for metadata in found))

    async def _delete_pod(self, metadata: Mapping[str, Any]) -> None:
        body = V1DeleteOptions(preconditions=V1Preconditions(uid=metadata["uid"]))
        try:
            await self.call(self.api.delete_namespaced_pod, name=metadata["name"], body=body)
        except ApiException as error:
            if error.status not in (404, 409):
                raise

    async def call(self, method: Any, **arguments: Any) -> Any:
        """Call one method of an API client, such as ``CoreV1Api``; return the object."""
        answer = await method(
            namespace=self.namespace, _request_timeout=REQUEST_TIMEOUT, _preload_content=False, **arguments
        )
        body = await answer.json()
        if answer.status >= 400:
            raise ApiException(status=answer.status, reason=body.get("message", answer.reason))
        return body
