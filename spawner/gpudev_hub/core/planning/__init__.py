"""The plan of a pool: who gets which nodes, and when.

Of the core, these modules know only the units and the places of ``model.py``; they know no records and no
events. A node's load over time is a resource profile; requests are placed by list scheduling, and moved to
earlier starts by compression of the schedule.
"""
