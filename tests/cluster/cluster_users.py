"""Users of an installation on the test cluster, and their servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx

from github_users import GithubUsers
from harness.cluster import Cluster
from hub_users import NO_TLS, wait_for

NAMESPACE: Final = "gpudev-servers"
PARTS: Final = {"hub": "hub/api/", "service": "services/gpudev/health/ready"}
"""For each part, an address that answers 200 once it works: the service also needs its dependencies."""


class ClusterUsers(GithubUsers):
    """Base class of the installations on the test cluster."""

    def __init__(self, folder: Path, url: str, cluster: Cluster) -> None:
        super().__init__(folder, url, "alice")
        self.cluster = cluster

    # Users

    def token_for(self, user: str | None = None) -> str:
        """Return a token of a user who may use the hub. Create the account if there is none."""
        self.register(user or self.user)
        return super().token_for(user)

    def browse(self, user: str) -> httpx.Client:
        """Return a browser of that user."""
        self.register(user)
        return super().browse(user)

    def allow(self, user: str, public: str) -> None:
        """Add an SSH key to a user's GitHub account."""
        self.register(user)
        self.github.control.add_key(user, public)

    def answers(self, name: str) -> bool:
        """Return whether users get an answer from the part."""
        url = f"{self.url}/{PARTS[name.partition('-')[0]]}"
        try:
            answer = httpx.get(url, trust_env=False, verify=NO_TLS, timeout=5)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def wait_until_up(self) -> None:
        """Wait until Hub and service answer users, and the service reports no missing dependency."""
        for name in PARTS:
            try:
                wait_for(name, lambda name=name: self.answers(name), 120)  # type: ignore[misc]
            except AssertionError as error:
                raise AssertionError(f"{error}; the {name} said: {self.log(name)[-4000:]}") from None

    # Servers

    def pods(self, id: str | None = None) -> list[dict[str, Any]]:
        """Return the pods of all servers, or of one reservation, sorted by name."""
        found = self.cluster.pods(NAMESPACE)
        return [
            pod
            for _, pod in sorted(found.items())
            if (of := pod["metadata"].get("labels", {}).get("gpudev/reservation")) and id in (None, of)
        ]

    def record(self, id: str, user: str | None = None) -> dict[str, Any]:
        """Return the reservation as the API shows it now."""
        found: dict[str, Any] = self.api("GET", f"reservations/{id}", None, user)
        return found

    def end(self, id: str, user: str | None = None) -> None:
        """Release a reservation, and wait until it has ended."""
        self.api("DELETE", f"reservations/{id}", None, user)
        self.wait_state(id, "ended", user)

    def clean(self) -> None:
        """End every reservation, and wait until no pod is left."""
        self.wait_until_up()
        left = self.api("GET", "reservations?owner=all")["reservations"]
        for record in left:
            self.api("DELETE", f"reservations/{record['id']}", None, record["owner"])
        for record in left:
            self.wait_state(record["id"], "ended", record["owner"])
        wait_for("no pods", lambda: not self.pods())
