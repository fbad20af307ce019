"""The Hub's configuration on Kubernetes.

``hub.extraConfig`` of the zero-to-jupyterhub chart calls it (``infra/chart/values.yaml``). Settings of a site
(addresses, its database) are in the chart's values.
"""

from __future__ import annotations

from typing import Any

from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.settings import SettingsError

from .gate import GateClient
from .github import configure_github
from .kubernetes import GpuSpawner
from .options import profile_list
from .pods import HOME, UID
from .scopes import OPERATORS
from .setup import operator_role, rely_on, separate, service_entry, service_role, template_vars


def configure(c: Any, settings: ClusterSettings) -> None:
    """Set up a Hub on Kubernetes; ``c`` is JupyterHub's configuration object. Raises ``SettingsError``."""
    policy = settings.make_policy()
    GpuSpawner.cluster = settings
    GpuSpawner.gate = GateClient(settings.gate_url, settings.word("gate"))
    GpuSpawner.profiles = profile_list(policy)
    hub = c.JupyterHub
    hub.spawner_class = GpuSpawner
    # Seconds. A proxy in a new pod has no routes until the Hub looks at it again.
    hub.last_activity_interval = 5
    hub.template_vars = template_vars(policy, settings.policy.contact)
    rely_on(c, policy, c.GpuSpawner)
    separate(c, settings.public_url, subdomains=settings.subdomains)
    spawner = c.GpuSpawner
    spawner.namespace = settings.namespace
    # KubeSpawner's own settings of pods, volumes and profiles are not used.
    spawner.cmd = ["/opt/gpudev/bin/jupyterhub-singleuser"]
    spawner.notebook_dir = HOME
    spawner.ip = "0.0.0.0"  # noqa: S104 (inside a pod)
    spawner.uid = UID
    spawner.poll_interval = 30
    spawner.storage_pvc_ensure = True
    spawner.delete_pvc = False
    spawner.pvc_name_template = "gpudev-home-{username}"
    spawner.storage_class = settings.home.storage_class
    spawner.storage_capacity = settings.home.size
    spawner.storage_access_modes = ["ReadWriteMany"]
    spawner.enable_user_namespaces = False
    spawner.after_pod_created_hook = None
    hub.services = [*_kept(hub.services), service_entry(settings.service_url, settings.word("service-token"))]
    hub.load_roles = [*_kept(hub.load_roles), service_role(), operator_role(groups=[OPERATORS])]
    groups = hub.load_groups if isinstance(hub.load_groups, dict) else {}
    if groups:
        raise SettingsError(
            f"c.JupyterHub.load_groups has {', '.join(sorted(groups))}, but the groups of the Hub follow the "
            "teams at GitHub: remove load_groups"
        )
    configure_github(c, settings.access(), GpuSpawner.gate, settings.public_url)


def _kept(configured: Any) -> list[Any]:
    """Return what the site has configured; an option that was not set is not a list."""
    return list(configured) if isinstance(configured, list) else []
