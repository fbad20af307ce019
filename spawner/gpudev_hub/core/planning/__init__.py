"""The plan of a pool: who gets which nodes, and when.

These modules use only the units and places of ``model.py``, and no records or events. A node's load over time
is a resource profile. Requests are placed by list scheduling, and moved to earlier starts by compression of
the schedule.
"""
