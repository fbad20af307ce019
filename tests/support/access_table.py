"""The access table of docs/access.md: who may do what in which situation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COLUMNS: Final = (
    "log in",
    "reserve on the page",
    "reserve by token",
    "reserve by a server's token",
    "extend",
    "share",
    "SSH through the bastion",
    "SSH to the server",
    "open JupyterLab",
)

YES: Final = "yes"
NO: Final = "no"
"""Refused, with the reason."""
LATER: Final = "later"
"""GitHub does not answer. The page says so, and that it is not a refusal."""


@dataclass(frozen=True, slots=True)
class Row:
    """One situation, with a cell for each column."""

    situation: str
    cells: tuple[str, ...]
    says: str
    """What the login page says; empty if the person gets in."""

    def expected(self, column: str) -> str:
        """Return the cell in this column."""
        return self.cells[COLUMNS.index(column)]


def _row(situation: str, login: str, others: str, says: str) -> Row:
    """Return a row; ``others``: every cell but that of the login."""
    return Row(situation, (login, *[others] * (len(COLUMNS) - 1)), says)


MEMBER: Final = "team and push"
TEAM_ONLY: Final = "team only"
PUSH_ONLY: Final = "push only"
NEITHER: Final = "neither"
OPERATOR: Final = "operator"
REMOVED: Final = "removed during a reservation"
RENAMED: Final = "renamed at GitHub"
REREGISTERED: Final = "old login registered by somebody else"
DOWN_BEFORE: Final = "GitHub down before the first login"
DOWN_AFTER: Final = "GitHub down after a login"
EXPIRED: Final = "token of the GitHub App expired"
LIMITED: Final = "rate limit of GitHub reached after a login"
SSO: Final = "SSO enforced, person without an SSO session"

NO_ANSWER: Final = "This does not mean that your access was refused."

ROWS: Final = (
    _row(MEMBER, YES, YES, ""),
    _row(TEAM_ONLY, NO, NO, "no push permission on pytorch/pytorch"),
    _row(PUSH_ONLY, NO, NO, "not a member of pytorch/metamates"),
    _row(NEITHER, NO, NO, "not a member of pytorch/metamates, and no push permission on pytorch/pytorch"),
    _row(OPERATOR, YES, YES, ""),
    _row(REMOVED, NO, NO, "not a member of pytorch/metamates"),
    _row(RENAMED, YES, YES, ""),
    _row(REREGISTERED, NO, NO, "not a member of pytorch/metamates"),
    _row(DOWN_BEFORE, LATER, NO, NO_ANSWER),
    _row(DOWN_AFTER, LATER, YES, NO_ANSWER),
    _row(EXPIRED, YES, YES, ""),
    _row(LIMITED, YES, YES, ""),
    _row(SSO, YES, YES, ""),
)


def cells() -> str:
    """Return the table as docs/access.md has it."""
    lines = ["| situation | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    return "\n".join([*lines, *(f"| {row.situation} | {' | '.join(row.cells)} |" for row in ROWS)]) + "\n"


def reasons() -> str:
    """Return what the login page says in each situation, as docs/access.md has it."""
    lines = ["| situation | login page |", "|---|---|"]
    return "\n".join([*lines, *(f"| {row.situation} | {row.says} |" for row in ROWS if row.says)]) + "\n"
