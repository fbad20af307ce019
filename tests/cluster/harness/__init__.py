"""A real Kubernetes on this machine: ``python -m harness run -- COMMAND`` boots it and runs a command in it.

Everything runs in separate network, mount and PID namespaces, so that the death of one process ends it all.
``layout`` has the paths and addresses. ``binaries``, ``images`` and ``server_image`` build what is missing.
``leader`` is process 1 of the namespaces. Tests use ``cluster.Cluster``.
"""
