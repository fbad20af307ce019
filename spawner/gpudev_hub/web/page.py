"""What all pages share: the templates, their filters, and common values."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import jinja2

from gpudev import wire
from gpudev_hub.core.decisions.timers import armed
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.words import sentence
from gpudev_hub.times import rfc3339

from . import page_view
from .base import SEE_API, PageHandler
from .drawing import Bar, parse

HERE = Path(__file__).parent
HEADINGS = {401: "Log in", 403: "Not allowed", 404: "Not found", 429: "Too many requests"}
NO_PAGE = "There is no page at this address."

T = TypeVar("T")


def bar_words(bar: Bar, now: str) -> list[dict[str, str]]:
    """Return the label of a bar in pieces. Those with ``name`` may be in right-to-left script."""
    b = bar.bar
    names = [{"text": name, "name": "name"} for name in (b.owner, b.name) if name]
    start, end = ({"text": page_view.clock(parse(at), parse(now)), "at": at} for at in (b.start, b.end))
    what = "planned" if bar.planned else b.state
    about = f": {page_view.size(b.gpus, b.nodes)}, {what}, {bar.node}, "
    between = [{"text": " · "}] * (len(names) - 1)
    return [*names[:1], *between, *names[1:], {"text": about}, start, {"text": " to "}, end]


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bar_words=bar_words,
        hours=page_view.hours,
        level=page_view.level,
        ordinal=page_view.ordinal,
        sentence=sentence,
        told=page_view.told,
        short=lambda iso, now: page_view.clock(parse(iso), parse(now)).removesuffix(" UTC"),
        size=page_view.size,
        when=page_view.when,
    )
    return environment


TEMPLATES = _templates()


class Page(PageHandler):
    """A page that is made from a template."""

    here = ""
    """The current entry of the navigation."""
    store_away = False
    """Whether the database did not answer, so that a part of the page is missing."""

    @property
    def root(self) -> str:
        """The service's path, with both slashes."""
        return self.site.settings.prefix

    @property
    def hub_root(self) -> str:
        """The Hub's path, with both slashes."""
        return str(self.hub_auth.hub_prefix)

    @property
    def now(self) -> str:
        return rfc3339(self.site.service.clock.now())

    async def stored(self, reading: Awaitable[T], instead: T) -> T:
        """Return what is read from the database, or ``instead`` if it does not answer.

        Live reservations are in memory, so most of a page can be shown without the database.
        """
        try:
            return await reading
        except Refused as refused:
            if refused.code is not Code.UNAVAILABLE:
                raise
            self.store_away = True
            return instead

    def show(self, template: str, code: int = 200, **values: Any) -> None:
        person = self.identity
        common = {
            "root": self.root,
            "hub": self.hub_root,
            "now": self.now,
            "user": "" if person is None else person.owner.login,
            "operator": person is not None and person.operator,
            "xsrf": "" if person is None else self.xsrf_token.decode("ascii"),
            "here": self.here,
            "store_away": self.store_away,
        }
        self.set_status(code)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(TEMPLATES.get_template(template).render(common | values))

    def show_error(self, error: wire.Error, status: int) -> None:
        heading = HEADINGS.get(status, "Request refused" if status < 500 else "Service problem")
        # Every page has this error, so the button leads to the same page.
        shut_out = error.code == Code.ACCESS_REVOKED
        if shut_out:
            heading = "You cannot use this hub now"
        if status == 404 and error.hint == SEE_API:
            error = wire.Error(code=error.code, message=NO_PAGE)
        self.show("error.html", status, error=error, status=status, heading=heading, shut_out=shut_out)

    def shown(self, record: Reservation) -> page_view.Shown:
        """Return a reservation for the templates."""
        found = self.site.presenter.reservation(record, self.person)
        told = found.mine or self.person.operator
        minutes = armed(record, self.site.service.policy.warn_minutes) if told else ()
        return page_view.Shown(
            found,
            self.now,
            record.live and record.stopped_at is not None,
            minutes,
            self.site.settings.subdomains,
        )
