"""Who may enter, and with which SSH keys, as GitHub says."""
