"""Host certificates, sshd's configuration and the keys that open a server."""
