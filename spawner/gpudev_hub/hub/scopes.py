"""Scopes at the Hub."""

from __future__ import annotations

from gpudev_hub.settings import SERVICE

RESERVE = "custom:gpudev:reserve"
OPERATE = "custom:gpudev:operate"
ENTER = f"access:services!service={SERVICE}"
SUPERVISOR = "gpudev-supervisor"
OPERATORS = "gpudev-operators"
"""Group of the Hub whose members are operators, on Kubernetes and wherever people log in with GitHub."""

OPERATOR_SCOPES = (OPERATE, "admin-ui")
"""Of operators. ``admin-ui`` only opens the page ``/hub/admin``, which links to the operator page.

Operators do not have the role ``admin``, whose scopes are fixed: shut down the Hub, start and open servers of
others."""
LOCAL_USER_SCOPES = (ENTER, RESERVE, "access:servers!user", "read:servers!user", "read:users:name!user")
"""Of the token in the local user's client configuration: only their own reservations and servers.
Editors that connect to a JupyterHub list the servers."""
SERVER_SCOPES = ("users:activity!user", "access:servers!server", ENTER, RESERVE, "read:users:name!user")
"""Of a server's own token, so that ``import gpudev`` works in a notebook."""
