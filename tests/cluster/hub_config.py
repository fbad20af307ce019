"""The Hub of the cluster tests: what the product sets, and the addresses of the test cluster."""

import os

from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.hub.cluster_setup import configure
from harness.layout import API_ADDRESS

c = get_config()  # type: ignore[name-defined] # noqa: F821 (JupyterHub provides it)

c.JupyterHub.bind_url = f"http://{API_ADDRESS}:8000"
c.JupyterHub.hub_bind_url = f"http://{API_ADDRESS}:8081"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = f"http://{API_ADDRESS}:8001"
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = "demo-password"
c.SharedPasswordAuthenticator.allowed_users = {"alice", "bob", "carol", "dave"}
configure(c, ClusterSettings.read(os.environ))
