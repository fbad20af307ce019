"""What runs inside a user's server, on the standard library alone: the launcher and the agent."""
