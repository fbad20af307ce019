"""Programs inside a user's server: the launcher and the agent. They import only the standard library."""
