"""Pure decisions: reservations, their lifecycle, the plan. No I/O, no clock, no framework.

The modules of this folder are the records, the events, and what the core needs from the outside. ``planning``
finds times and nodes, ``limits`` says how much a person may use, ``decisions`` turns events into changes, and
``views`` says in words what the records mean.
"""
