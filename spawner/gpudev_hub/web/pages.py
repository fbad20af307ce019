"""The pages: the same use cases as the API's, for people with a browser, with or without scripts.

Every form is a POST with the XSRF token and answers 303, or the page again with what was refused and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from tornado.web import RequestHandler, StaticFileHandler

from gpudev import wire
from gpudev.foreign import uncoloured
from gpudev.hours import EXAMPLES, read_hours
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Outcome, Reservation
from gpudev_hub.core.quota import hold_for
from gpudev_hub.core.timers import armed

from . import page_view
from .app import Site
from .base import ENCODER, JSON, PageHandler, describe
from .drawing import Bar, draw, parse
from .present import millis, rfc3339

HERE = Path(__file__).parent
FIELDS = ("gpus", "nodes", "hours", "gpu_type", "name", "image")
"""What a link or a form may fill in."""
LONGEST_FIELD = 100
ENDED = 8
"""Ended reservations on the home page."""
HISTORY = 200
LOG_LINES = 80
HEADINGS = {401: "Please log in", 403: "Not for you", 404: "Nothing here", 429: "A little slower, please"}


def bar_words(bar: Bar, now: str) -> list[dict[str, str]]:
    """A bar of the timeline, for pointers and screen readers, in pieces."""
    b = bar.bar
    name = f" · {b.name}" if b.name else ""
    start, end = ({"text": page_view.clock(parse(at), parse(now)), "at": at} for at in (b.start, b.end))
    what = "planned" if bar.planned else b.state
    about = f"{b.owner}{name}: {page_view.size(b.gpus, b.nodes)}, {what}, {bar.node}, "
    return [{"text": about}, start, {"text": " to "}, end]


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
        level=page_view.grant,
        ordinal=page_view.ordinal,
        sentence=page_view.sentence,
        told=page_view.told,
        short=lambda iso, now: page_view.clock(parse(iso), parse(now)).removesuffix(" UTC"),
        size=page_view.size,
        when=page_view.when,
    )
    return environment


TEMPLATES = _templates()


class Page(PageHandler):
    """What all pages share."""

    here = ""
    """The entry of the navigation that this page is."""

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
        """The service's time."""
        return rfc3339(self.site.service.clock.now())

    def show(self, template: str, code: int = 200, **values: Any) -> None:
        """Send a page."""
        user = self.identity.owner.login if self.identity is not None else ""
        xsrf = self.xsrf_token.decode("ascii") if self.identity is not None else ""
        common = {
            "root": self.root,
            "hub": self.hub_root,
            "user": user,
            "operator": self.identity is not None and self.identity.operator,
            "xsrf": xsrf,
            "here": self.here,
        }
        self.set_status(code)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(TEMPLATES.get_template(template).render(common | {"now": self.now} | values))

    def show_error(self, error: wire.Error, status: int) -> None:
        """As a page."""
        heading = HEADINGS.get(status, "That did not work" if status < 500 else "Something is out of order")
        if status == 404 and error.hint.startswith("see api/"):
            error = wire.Error(code=error.code, message="there is no page at this address")
        self.show("error.html", status, error=error, status=status, heading=heading)

    def shown(self, record: Reservation) -> page_view.Shown:
        """A reservation for the templates."""
        found = self.site.presenter.reservation(record, self.person)
        told = found.mine or self.person.operator
        minutes = armed(record, self.site.service.policy.warn_minutes) if told else ()
        return page_view.Shown(found, self.now, record.live and record.stopped_at is not None, minutes)

    def fields(self) -> dict[str, str]:
        """The fields of the picker that a link or a form brought, and nothing else."""
        given = {name: self.get_argument(name, "")[:LONGEST_FIELD] for name in FIELDS}
        return {name: value for name, value in given.items() if value}


class Home(Page):
    """``/``: the caller's reservations."""

    here = "home"

    async def get(self) -> None:
        await self.render_home()

    async def render_home(self, error: Refused | None = None) -> None:
        """The page; ``error``: what was just refused."""
        service, presenter, person = self.site.service, self.site.presenter, self.person
        own = sorted(
            (r for r in service.view.reservations.values() if r.owner.subject == person.owner.subject),
            key=lambda record: record.seq,
        )
        ended, _ = await service.ended(person.owner.subject, None, ENDED)
        self.show(
            "home.html",
            409 if error else 200,
            error=error,
            me=presenter.me(person),
            live=[self.shown(record) for record in own],
            ended=[self.shown(record) for record in ended],
            pools=service.pools(),
        )


class New(Page):
    """``/new``: a POST mints an id and goes to its spawn page, which is the picker."""

    here = "home"

    async def get(self) -> None:
        """Only says what comes; what the link brought is filled in later."""
        prefill = self.fields()
        words = ""
        if prefill.get("gpus", "").isdecimal():
            nodes = prefill.get("nodes", "1")
            words = page_view.size(int(prefill["gpus"]), int(nodes) if nodes.isdecimal() else 1)
        self.show("new.html", prefill=prefill, words=words, pending=None)

    async def post(self) -> None:
        """Mint, and go on to the form."""
        owner = self.person.owner
        minted = await self.site.service.mint(owner.subject)
        fields = self.fields()
        query = f"?{urlencode(fields)}" if fields else ""
        self.redirect(f"{self.hub_root}spawn/{quote(owner.hub_user, safe='@~')}/{minted}{query}", status=303)


class ReservationPage(Page):
    """``/reservations/ID``."""

    here = "home"

    async def find(self, id: str) -> Reservation | None:
        """The reservation; raises ``Refused`` if there is none and no form of the caller's for it either."""
        record = await self.site.service.find(id)
        if record is not None:
            self.reservation = record.id
            return record
        minted = self.site.service.view.minted.get(id)
        if minted is None or minted.subject != self.person.owner.subject:
            raise Refused(
                Code.NOT_FOUND, f"there is no reservation {id[:64]}", "it may have been another Hub's"
            )
        return None

    async def get(self, id: str) -> None:
        """``?open=1``: go to the server as soon as it is ready (for browsers without scripts)."""
        record = await self.find(id)
        if record is None:
            user = quote(self.person.owner.hub_user, safe="@~")
            form = f"{self.hub_root}spawn/{user}/{id}"
            self.show("new.html", prefill={}, words="", pending=form)
            return
        shown = self.shown(record)
        if self.get_argument("open", "") and shown.lab is not None:
            self.redirect(shown.lab, status=303)
            return
        await self.render_reservation(record)

    async def render_reservation(
        self, record: Reservation, error: Refused | None = None, asked: str = ""
    ) -> None:
        """The page; ``error``: what was just refused, ``asked``: what for."""
        shown = self.shown(record)
        may_act = shown.r.mine or self.person.operator
        history: list[page_view.Happening] | None = None
        logs: Mapping[str, str] = {}
        if may_act:
            entries, _ = await self.site.service.history(record.id, 0, HISTORY)
            found = self.site.presenter.history(entries, None)
            history = page_view.happenings(found.items, shown.r.owner, self.now)
            logs = await self._logs(record)
        again = {
            "gpus": shown.r.gpus,
            "nodes": shown.r.nodes,
            "hours": f"{shown.r.hours:g}",
            "gpu_type": shown.r.gpu_type,
            "name": shown.r.name or "",
            "image": shown.r.image,
        }
        self.show(
            "reservation.html",
            409 if error else 200,
            s=shown,
            may_act=may_act,
            history=history,
            logs=logs,
            slots=page_view.slots(shown.r.allocation),
            again=again,
            error=error,
            asked=asked,
        )

    async def _logs(self, record: Reservation) -> Mapping[str, str]:
        if not record.live or not record.attempt:
            return {}
        try:
            found = await self.site.service.logs(record.id, LOG_LINES)
            return {source: uncoloured(text) for source, text in found.logs.items()}
        except Refused as refused:
            return {"not available": f"{refused.message}"}


class ReservationAction(ReservationPage):
    """``/reservations/ID/extend``, ``/release`` and ``/resume``: the forms of that page."""

    async def get(self, id: str, action: str) -> None:  # type: ignore[override]
        """The address of a refused form, reloaded."""
        del action
        self.redirect(f"{self.root}reservations/{quote(id)}", status=303)

    async def post(self, id: str, action: str) -> None:
        """``extend``, ``release`` or ``resume``."""
        record = await self.find(id)
        if record is None:
            raise Refused(Code.NOT_FOUND, f"there is no reservation {id[:64]}")
        person = self.person
        mine = record.owner.subject == person.owner.subject
        if not mine and not person.operator:
            raise Refused(
                Code.FORBIDDEN,
                f"reservation {record.id} is {record.owner.login}'s",
                "only its owner and operators may do that",
            )
        service, actor = self.site.service, person.owner.subject
        try:
            if action == "extend":
                await service.extend(record.id, actor, millis(self._hours()))
            elif action == "resume":
                await service.resume(record.id, actor)
            else:
                await service.end(record.id, actor, None if mine else Outcome.ENDED_BY_OPERATOR)
        except Refused as refused:
            latest = await self.find(id) or record
            await self.render_reservation(latest, refused, self.get_argument("hours", "")[:LONGEST_FIELD])
            return
        self.redirect(f"{self.root}reservations/{record.id}", status=303)

    def _hours(self) -> float:
        text = self.get_argument("hours", "")
        hours = read_hours(text)
        if hours is None:
            raise Refused(Code.INVALID_HOURS, f"{text[:20]!r} is not a length of time", f"use {EXAMPLES}")
        return hours


class Pool(Page):
    """``/pool``: the timeline."""

    here = "pool"

    async def get(self) -> None:
        timeline = self.site.presenter.timeline(self.person, self.site.service.clock.now())
        pools = self.site.service.pools()
        self.show(
            "pool.html",
            now=timeline.now,
            pools=[
                {
                    "pool": pool,
                    "drawing": draw(pool, timeline.now),
                    "held": _held(pool),
                    "free": found.gpus_free,
                    "total": found.gpus_total,
                    "up": found.nodes_up,
                }
                for pool, found in zip(timeline.pools, pools, strict=True)
            ],
        )


def _held(pool: wire.TimelinePool) -> list[dict[str, Any]]:
    """One row per reservation that holds GPUs, the next to end first."""
    rows: dict[str, dict[str, Any]] = {}
    for node in pool.nodes:
        for bar in node.bars:
            if bar.state != "queued":
                row = rows.setdefault(
                    bar.id, {"bar": bar, "nodes": [], "size": page_view.size(bar.gpus, bar.nodes)}
                )
                row["nodes"].append(node.name)
    return sorted(rows.values(), key=lambda row: (row["bar"].end, row["bar"].id))


class PickerFeed(PageHandler):
    """``/picker?hours=``: what the picker's cards say, kept fresh by its script."""

    def check_xsrf_cookie(self) -> None:
        """Nothing to check: the picker is a page of the Hub's and has no token of ours; this only reads, and
        says the same to everybody."""

    async def prepare(self) -> None:
        """Like every page, but never a redirect: a script asks."""
        self.identity = await self.identify()
        if self.identity is None:
            raise Refused(Code.UNAUTHENTICATED, "nobody is logged in", "reload the page")
        self.limit(self.identity.owner.subject, write=False)

    async def get(self) -> None:
        """Raises ``Refused`` for hours that can't be asked for; the page shows the words."""
        text = self.get_argument("hours", "")
        hours = read_hours(text)
        if hours is None:
            raise Refused(Code.INVALID_HOURS, f"{text[:20]!r} is not a length of time", f"use {EXAMPLES}")
        hold = hold_for(self.site.service.policy, self.person.owner.subject, hours)
        found = self.site.service.availability(self.person.owner, hold)
        self.answer(self.site.presenter.availability(found, hold, self.person))


class Static(StaticFileHandler):
    """Style sheet, scripts and icon; revalidated with every page, so that nobody runs last week's."""

    def initialize(self, site: Site, path: str) -> None:  # type: ignore[override]
        self.site = site
        super().initialize(path)

    def set_extra_headers(self, _: str) -> None:
        """For a file that was found."""
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """In the one form of all errors."""
        cause = kwargs.get("exc_info", (None, None, None))[1]
        error, status = describe(cause, status_code, self.request.method or "", "")
        if status == 405:
            self.set_header("Allow", "GET, HEAD")
        self.set_header("Content-Type", JSON)
        self.set_status(status)
        self.finish(ENCODER.encode(wire.ErrorBody(error=error)))


class NoPage(Page):
    """Every other address that is not the API's."""

    async def get(self) -> None:
        raise Refused(Code.NOT_FOUND, "there is no page at this address", "the link may be old")

    post = put = patch = delete = get


def pages() -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Regular expressions below the service's prefix, for ``make_public_app``."""
    return [
        ("", Home, {}),
        ("new", New, {}),
        ("pool", Pool, {}),
        ("picker", PickerFeed, {}),
        (r"reservations/([^/]{1,64})", ReservationPage, {}),
        (r"reservations/([^/]{1,64})/(extend|release|resume)", ReservationAction, {}),
        (r"static/([a-z-]+\.(?:css|js|svg))", Static, {"path": str(HERE / "static")}),
        (r"(?!api/|servers/|health/|metrics)(?:.+)", NoPage, {}),
    ]
