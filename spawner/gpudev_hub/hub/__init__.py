"""What is added to JupyterHub: the gate's client, the spawner and the Hub's pages."""
