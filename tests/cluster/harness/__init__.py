"""A real Kubernetes on this machine: ``python -m harness run -- COMMAND`` boots it around a command.

Everything runs in one network, mount and PID namespace of its own, so that the death of one process removes
it all. ``layout`` says what lies where; ``binaries``, ``images`` and ``server_image`` make what is missing;
``leader`` is process 1 of the namespaces; ``cluster.Cluster`` is what tests hold in their hands.
"""
