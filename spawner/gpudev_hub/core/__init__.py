"""Pure decisions: reservations, their lifecycle, the plan. No I/O, no clock, no framework.

This folder has the records, the events, and what the core needs from outside. ``planning`` finds times and
nodes, ``limits`` says how much a person may use, ``decisions`` turns events into changes, and ``views`` shows
people what the records mean.
"""
