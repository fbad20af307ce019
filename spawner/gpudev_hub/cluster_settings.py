"""Settings of a hub on Kubernetes: one JSON file, named by ``GPUDEV_CLUSTER``, that Hub and service read.

Secrets are separate files in the folder that ``GPUDEV_SECRETS`` names. A second file says who may log in
(``GPUDEV_GITHUB``, see ``github_settings``); Hub and service need it, too. ``docs/kubernetes.md`` has an
example.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated

import msgspec

from .core.model import SECOND
from .core.policy import Policy, PoolSettings
from .github_settings import GithubSettings
from .policyfile import PolicyFile
from .settings import PREFIX, SettingsError
from .settings_error import cause

DEFAULT_SECRETS = "/etc/gpudev/secrets"

_Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
_Url = Annotated[str, msgspec.Meta(pattern="^https?://[^/]+")]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1_000)]


class Store(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The DynamoDB table of the service."""

    table: str
    region: str
    endpoint: str | None = None
    """Another address than AWS's, for tests."""


class Ec2(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The EC2 API, which tells the service when the capacity blocks of its nodes end."""

    region: str | None = None
    """``None``: the region of the table."""
    endpoint: str | None = None
    """Another address than AWS's, for tests."""


class Pool(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Nodes of one GPU type: those whose label ``gpudev/pool`` has the name of the pool.

    On AWS, ``infra/aws/platform/gpudev.tf`` makes these from its variable ``pools``.
    """

    name: _Name
    label: str = ""
    """Text for people, such as ``8 × H100 (p5.48xlarge)``."""
    gpus_per_node: _Count
    images: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Images that users may choose from; the first is the default."""
    max_gang: _Count = 2
    """Maximum number of whole nodes in one reservation."""
    cpus_per_node: _Positive
    """CPUs of a node for servers, without those for kubelet and system pods. A server gets a share in
    proportion to its GPUs."""
    memory_gib_per_node: _Positive
    """Memory of a node for servers, shared like the CPUs. The share of a server is also its limit."""
    disk_gib_per_node: _Positive | None = None
    """Local disk of a node for what servers write, including ``/scratch``, shared like the CPUs. The kubelet
    ends a server that writes more than its share. ``None``: no shares, so one server can fill the disk."""
    shm_fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """Fraction of a server's memory that ``/dev/shm`` may use."""
    startup_seconds: _Positive = 600
    teardown_seconds: _Positive = 300
    simulated: bool = False
    """Whether the nodes report simulated GPUs (for tests)."""
    pretended: bool = False
    """The earlier name of ``simulated``."""


class Home(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Homes: one volume per user, which servers of the user on different nodes can mount at the same time."""

    storage_class: str
    size: str = "100Gi"


class BastionAt(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where users reach the SSH bastion."""

    host: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9.:-]*$")]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 22
    user: _Name = "jump"
    """The account for logins in the bastion's image."""


class ClusterSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Everything that Hub and service on Kubernetes must agree on."""

    public_url: _Url
    """Address of the Hub for browsers and clients, with its base path."""
    hub_api: _Url
    """Address of the Hub's REST API for the service, such as ``http://hub:8081/hub/api``."""
    service_url: _Url
    """Address of the service for Hub, proxy and servers, without a path, such as
    ``http://gpudev-service.gpudev:8100``."""
    gate_url: _Url
    """Address of the service's gate for the Hub."""
    store: Store
    pools: Annotated[tuple[Pool, ...], msgspec.Meta(min_length=1)]
    """The first is the default pool."""
    home: Home
    ec2: Ec2 = Ec2()
    namespace: _Name = "gpudev-servers"
    """Namespace of the users' servers."""
    cluster_domain: str = "cluster.local"
    image_pull_policy: str = "IfNotPresent"
    sudo: bool = False
    """Whether users may become root in their servers, if the image has ``sudo``."""
    grace_seconds: Annotated[int, msgspec.Meta(ge=5, le=300)] = 30
    """Seconds in which a server must end."""
    stuck_seconds: Annotated[int, msgspec.Meta(ge=1)] = 60
    """Seconds after which an attempt fails if Kubernetes cannot place its pod or fetch its image."""
    policy_probe: bool = False
    """Whether servers start only where network policies are shown to be enforced: on nodes with a Ready pod
    of the DaemonSet ``gpudev-policy-probe``, and after a check inside each server."""
    bastion: BastionAt | None = None
    """``None``: clients get the addresses of the servers themselves."""
    subdomains: bool = False
    """Whether each user's servers are on a subdomain of ``public_url``. ``False``: guests have only SSH."""
    public_port: int = 8100
    gate_port: int = 8101
    balancers: tuple[Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F.:]+/[0-9]{1,3}$")], ...] = ()
    """Networks of the load balancers in front of the Hub's proxy, and of nodes that they forward through.
    Without them, all users seem to have the balancer's address, so that one person's wrong tokens use up the
    limit for everyone."""
    metrics_port: int = 8102
    """Metrics without a login; restrict access with a network policy."""
    state: str = "/run/gpudev"
    """Folder for temporary files of the service."""
    secrets: str = DEFAULT_SECRETS
    policy: PolicyFile = msgspec.field(default_factory=PolicyFile)
    """Limits and times, as in ``GPUDEV_POLICY``."""
    github: GithubSettings | None = None
    """How people log in; ``read`` reads it from the file that ``GPUDEV_GITHUB`` names."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> ClusterSettings:
        """Return the settings in the files that ``GPUDEV_CLUSTER`` and ``GPUDEV_GITHUB`` name.

        Raises ``SettingsError``.
        """
        path = environment.get("GPUDEV_CLUSTER", "")
        try:
            found = msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise SettingsError(
                f"GPUDEV_CLUSTER names {path!r}, which cannot be used: {cause(error)}"
            ) from error
        settings = msgspec.structs.replace(
            found,
            secrets=environment.get("GPUDEV_SECRETS") or found.secrets,
            github=GithubSettings.read(environment),
        )
        settings.access()
        settings.balancer_networks()
        return settings

    def access(self) -> GithubSettings:
        """Return how people log in. Raises ``SettingsError`` if this is not set."""
        if self.github is None:
            raise SettingsError(
                "GPUDEV_GITHUB is not set. On Kubernetes people log in with GitHub, so it must name the JSON "
                "file with the settings of the GitHub App (docs/github-app.md)"
            )
        return self.github

    def secret(self, name: str) -> bytes:
        """Return the secret of that name. Raises ``SettingsError``."""
        path = Path(self.secrets) / name
        try:
            value = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"the secret {name} cannot be read: {path}: {error.strerror}") from error
        if not value:
            raise SettingsError(f"the secret {name} is empty: {path}")
        return value

    def word(self, name: str) -> str:
        """Return the secret of that name as text. Raises ``SettingsError``."""
        return self.secret(name).decode().strip()

    def balancer_networks(self) -> list[IPv4Network | IPv6Network]:
        """Return ``balancers`` as networks. Raises ``SettingsError``."""
        try:
            return [ip_network(one) for one in self.balancers]
        except ValueError as error:
            raise SettingsError(
                f"balancers has a value that is not a network: {error}. Write networks such as 10.64.0.0/16"
            ) from error

    @property
    def service_base(self) -> str:
        """Address of the service's public routes, for servers."""
        return self.service_url.rstrip("/") + PREFIX

    @property
    def stop_seconds(self) -> int:
        """Maximum seconds for the end of a server: its grace, and the time until its pods are seen gone."""
        return self.grace_seconds + 30

    def pool(self, name: str) -> Pool:
        """Return the pool of that name. Raises ``KeyError``."""
        return {pool.name: pool for pool in self.pools}[name]

    def make_policy(self) -> Policy:
        """Return the limits and times on which decisions depend."""
        return self.policy.on(
            Policy(
                pools=tuple(
                    PoolSettings(
                        name=pool.name,
                        gpus_per_node=pool.gpus_per_node,
                        images=pool.images,
                        label=pool.label,
                        simulated=pool.simulated or pool.pretended,
                        max_gang=pool.max_gang,
                        startup=round(pool.startup_seconds * SECOND),
                        teardown=round(pool.teardown_seconds * SECOND),
                        stop_overrun=self.stop_seconds * SECOND,
                    )
                    for pool in self.pools
                )
            )
        )
