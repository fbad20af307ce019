"""Observes nodes and servers, with one module per engine."""
