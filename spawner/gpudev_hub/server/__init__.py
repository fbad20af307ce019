"""Programs inside a user's server: the launcher and the agent. They need only the standard library."""
