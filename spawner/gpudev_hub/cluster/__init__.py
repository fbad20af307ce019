"""Nodes and servers as observed, one module per engine."""
