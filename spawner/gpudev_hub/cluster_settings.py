"""Settings of a hub on Kubernetes: one JSON file, named by ``GPUDEV_CLUSTER``, that Hub and service read.

Secrets are separate files, in the folder that ``GPUDEV_SECRETS`` names. Who may log in is in a second file
(``GPUDEV_GITHUB``, see ``github_settings``), which both need as well. ``docs/kubernetes.md`` has an example.
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
    """Where the service asks when the capacity blocks of its nodes end."""

    region: str | None = None
    """``None``: the region of the table."""
    endpoint: str | None = None
    """Another address than AWS's, for tests."""


class Pool(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Nodes of one GPU type: the nodes whose label ``gpudev/pool`` is its name."""

    name: _Name
    label: str = ""
    """Shown to people: ``8 × H100 (p5.48xlarge)``."""
    gpus_per_node: _Count
    images: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Images that users may choose from; the first is the default."""
    max_gang: _Count = 2
    """Most whole nodes of one reservation."""
    cpus_per_node: _Positive
    """CPUs of a node for servers, without those for kubelet and system pods. Each server gets its share by
    GPUs."""
    memory_gib_per_node: _Positive
    """Memory of a node for servers, shared like the CPUs. A server's share is also its limit."""
    disk_gib_per_node: _Positive | None = None
    """Local disk of a node for what servers write, also in ``/scratch``. Each server has its share by GPUs;
    the kubelet ends a server that writes more. ``None``: no shares, and one server can fill the disk."""
    shm_fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """Part of a server's memory that ``/dev/shm`` may take."""
    startup_seconds: _Positive = 600
    teardown_seconds: _Positive = 300
    simulated: bool = False
    """Whether the nodes only report GPUs that do not exist (tests)."""
    pretended: bool = False
    """The earlier name of ``simulated``."""


class Home(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A volume per user that several of their servers on different nodes can mount."""

    storage_class: str
    size: str = "100Gi"


class BastionAt(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where users reach the SSH bastion."""

    host: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9.:-]*$")]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 22
    user: _Name = "jump"
    """The account in the bastion's image."""


class ClusterSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Everything that Hub and service on Kubernetes must agree on."""

    public_url: _Url
    """The Hub as browsers and clients reach it, with its base path."""
    hub_api: _Url
    """The Hub's REST API as the service reaches it: ``http://hub:8081/hub/api``."""
    service_url: _Url
    """The service as Hub, proxy and servers reach it, without a path:
    ``http://gpudev-service.gpudev:8100``."""
    gate_url: _Url
    """The service's gate as the Hub reaches it."""
    store: Store
    pools: Annotated[tuple[Pool, ...], msgspec.Meta(min_length=1)]
    """The first is the default pool."""
    home: Home
    ec2: Ec2 = Ec2()
    namespace: _Name = "gpudev-servers"
    """Of the users' servers."""
    cluster_domain: str = "cluster.local"
    image_pull_policy: str = "IfNotPresent"
    sudo: bool = False
    """Whether users may become root in their servers (if the image has ``sudo``)."""
    grace_seconds: Annotated[int, msgspec.Meta(ge=5, le=300)] = 30
    """Seconds that a server has to end."""
    stuck_seconds: Annotated[int, msgspec.Meta(ge=1)] = 60
    """An attempt has failed if Kubernetes cannot place its pod, or fetch its image, for this long."""
    policy_probe: bool = False
    """Whether servers start only where network policies are shown to be enforced: on nodes with a Ready pod
    of the DaemonSet ``gpudev-policy-probe``, and after each server has tried it."""
    bastion: BastionAt | None = None
    """``None``: clients get the servers' own addresses."""
    subdomains: bool = False
    """Whether each user's servers are on a subdomain of ``public_url``. ``False``: guests have only SSH."""
    public_port: int = 8100
    gate_port: int = 8101
    balancers: tuple[Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F.:]+/[0-9]{1,3}$")], ...] = ()
    """Networks of the load balancers in front of the Hub's proxy, and of nodes that they forward through.
    Without them, all users have the balancer's address, and one person's wrong tokens use up the limit for
    all."""
    metrics_port: int = 8102
    """Metrics without a login; restrict access with a network policy."""
    state: str = "/run/gpudev"
    """Folder for files of the service that need not outlive it."""
    secrets: str = DEFAULT_SECRETS
    policy: PolicyFile = msgspec.field(default_factory=PolicyFile)
    """Limits and times, as in ``GPUDEV_POLICY``."""
    github: GithubSettings | None = None
    """How people log in; ``read`` takes it from the file in ``GPUDEV_GITHUB``."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> ClusterSettings:
        """Return the settings in the files that ``GPUDEV_CLUSTER`` and ``GPUDEV_GITHUB`` name.

        Raises ``SettingsError``.
        """
        path = environment.get("GPUDEV_CLUSTER", "")
        try:
            found = msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise SettingsError(f"GPUDEV_CLUSTER names {path!r}, which cannot be used: {error}") from error
        settings = msgspec.structs.replace(
            found,
            secrets=environment.get("GPUDEV_SECRETS") or found.secrets,
            github=GithubSettings.read(environment),
        )
        settings.access()
        settings.balancer_networks()
        return settings

    def access(self) -> GithubSettings:
        """Return how people log in. Raises ``SettingsError`` if that is not set."""
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
        """Return a secret that is text. Raises ``SettingsError``."""
        return self.secret(name).decode().strip()

    def balancer_networks(self) -> list[IPv4Network | IPv6Network]:
        """Return the networks of ``balancers``. Raises ``SettingsError``."""
        try:
            return [ip_network(one) for one in self.balancers]
        except ValueError as error:
            raise SettingsError(
                f"balancers has a value that is not a network: {error}. Write networks such as 10.64.0.0/16"
            ) from error

    @property
    def service_base(self) -> str:
        """Address of the service's public routes for servers."""
        return self.service_url.rstrip("/") + PREFIX

    @property
    def stop_seconds(self) -> int:
        """Most seconds for the end of a server: its grace, and the time until its pods are observed gone."""
        return self.grace_seconds + 30

    def pool(self, name: str) -> Pool:
        """Return the pool of that name. Raises ``KeyError``."""
        return {pool.name: pool for pool in self.pools}[name]

    def make_policy(self) -> Policy:
        """Return the settings that decisions depend on."""
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
