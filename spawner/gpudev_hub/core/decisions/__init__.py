"""What an event changes, and which effects follow.

Start with ``decide.py``: it calls one function per kind of event, in the module named after the subject of
the event. Only this package changes the working state. Its texts are sentences of
``core/sentences.py``.
"""
