"""What is added to JupyterHub: the gate's client, the spawners and the Hub's pages."""
