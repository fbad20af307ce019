"""Users of a gpudev on the test cluster, and the servers that they have there; wherever its parts run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx

from github_users import GithubUsers
from harness.cluster import Cluster
from hub_users import NO_TLS, wait_for

NAMESPACE: Final = "gpudev-servers"
PARTS: Final = {"hub": "hub/api/", "service": "services/gpudev/health/ready"}
"""An address of each part that answers 200 once it works; the service's once all that it needs does, too."""


class ClusterUsers(GithubUsers):
    """Mixed into what installs gpudev there."""

    def __init__(self, folder: Path, url: str, cluster: Cluster) -> None:
        super().__init__(folder, url, "alice")
        self.cluster = cluster

    # Users

    def token_for(self, user: str | None = None) -> str:
        """As of whoever may enter: an account is made for a name that has none."""
        self.register(user or self.user)
        return super().token_for(user)

    def browse(self, user: str) -> httpx.Client:
        """The same in a browser."""
        self.register(user)
        return super().browse(user)

    def allow(self, user: str, public: str) -> None:
        """Give a user an SSH key at GitHub."""
        self.register(user)
        self.github.control.add_key(user, public)

    def answers(self, name: str) -> bool:
        """Whether users get an answer from that part."""
        url = f"{self.url}/{PARTS[name.partition('-')[0]]}"
        try:
            answer = httpx.get(url, trust_env=False, verify=NO_TLS, timeout=5)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def wait_until_up(self) -> None:
        """Until users get answers from both, and the service finds nothing away."""
        for name in PARTS:
            try:
                wait_for(name, lambda name=name: self.answers(name), 120)  # type: ignore[misc]
            except AssertionError as error:
                raise AssertionError(f"{error}; the {name} said: {self.log(name)[-4000:]}") from None

    # Servers

    def pods(self, id: str | None = None) -> list[dict[str, Any]]:
        """Pods of servers, or of one reservation, by name."""
        found = self.cluster.pods(NAMESPACE)
        return [
            pod
            for _, pod in sorted(found.items())
            if (of := pod["metadata"].get("labels", {}).get("gpudev/reservation")) and id in (None, of)
        ]

    def record(self, id: str, user: str | None = None) -> dict[str, Any]:
        """The reservation as the API shows it now."""
        found: dict[str, Any] = self.api("GET", f"reservations/{id}", None, user)
        return found

    def end(self, id: str, user: str | None = None) -> None:
        """Release it and wait for its end."""
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
