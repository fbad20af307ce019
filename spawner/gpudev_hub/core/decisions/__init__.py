"""What an event changes, and what is to be done about it.

Start with ``decide.py``: it calls one function per kind of event, in the module named after what the event is
about. Only this package changes the working state, and nothing here makes texts for pages.
"""
