"""Access by GitHub for the reservation service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .auth.parts import GithubParts
from .core.decisions.access_sweep import Rules
from .core.model import Owner
from .core.policy import Policy
from .service.access import Github
from .service.service import Service
from .web.auth import HubUser


def access_by(parts: GithubParts, contact: str) -> Github:
    """Return what the service needs; ``contact``: whom people without access should ask."""
    settings = parts.settings
    rules = Rules(
        team=settings.team,
        repository=settings.repository,
        outage_grace=settings.outage_grace,
        most_people=settings.mass_revocation.people,
        most_percent=settings.mass_revocation.percent,
        blocked=frozenset(settings.blocked),
    )
    return Github(parts.membership, rules, settings.sweep, contact, lambda: parts.client.rate)


def with_github(policy: Policy, parts: GithubParts | None) -> Policy:
    """Return the policy with the settings of GitHub: teams for limits, and the grace after lost access."""
    if parts is None:
        return policy
    settings = parts.settings
    return replace(policy, teams=settings.teams, revocation_grace=settings.revocation_grace)


def owner_by(service: Service, otherwise: Callable[[HubUser], Owner]) -> Callable[[HubUser], Owner]:
    """Return a function for the owner of reservations: the person with this Hub name, else ``otherwise``.

    If GitHub says who may get in, others may not use the service.
    """

    def owner(user: HubUser) -> Owner:
        return service.access.people.owner_of(user.name) or otherwise(user)

    return owner
