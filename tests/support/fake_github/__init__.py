"""Serve a small GitHub over real HTTP: REST, a GitHub App, OAuth with a login page, webhooks, and failures.

Run it with ``python -m fake_github --port 9000 --folder FOLDER``. In tests, call
``make_github(folder=tmp_path)``, then ``start()`` and ``stop()``. To change accounts, rights or failures
while it runs, use ``github.control``, or send ``POST /_control/OPERATION`` with the arguments as JSON.
"""

from .control import Control, Rule, Seen
from .organisation import DEFAULT, make_github
from .server import FakeGithub
from .state import State

__all__ = ["DEFAULT", "Control", "FakeGithub", "Rule", "Seen", "State", "make_github"]
