"""The hub's side of gpudev: the reservation service, the engines and what is added to JupyterHub."""
