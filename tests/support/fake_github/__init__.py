"""A small GitHub over real HTTP: REST, GitHub App, OAuth with a login page, webhooks, failures on demand.

``python -m fake_github --port 9000 --folder FOLDER`` runs it. In tests: ``make_github(folder=tmp_path)``,
then ``start()`` and ``stop()``; ``github.control`` changes everything while it runs, and so does
``POST /_control/OPERATION`` with the arguments as JSON.
"""

from .control import Control, Rule, Seen
from .organisation import DEFAULT, make_github
from .server import FakeGithub
from .state import State

__all__ = ["DEFAULT", "Control", "FakeGithub", "Rule", "Seen", "State", "make_github"]
