"""The reservation service: the one writer, its control loop, effects and reconciliation."""
