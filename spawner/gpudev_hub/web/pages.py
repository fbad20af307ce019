"""The pages: what the API does, for browsers with and without scripts.

Each form is a POST with the XSRF token. The answer is a redirect (303), or the page again with the refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from tornado.web import RequestHandler, StaticFileHandler

from gpudev import wire
from gpudev.foreign import uncoloured
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.limits.quota import hold_for
from gpudev_hub.core.model import Reservation
from gpudev_hub.times import instant

from . import guests, limit_view, page_view
from .base import BaseHandler, PageHandler
from .drawing import draw
from .help import ClientDownload, Help
from .login_page import LoginPage
from .operator import OperateNode, OperateReservation, Operator
from .page import HERE, NO_PAGE, Page
from .present import hours_of, millis
from .servers import status_of
from .site import Site
from .usage_page import UsagePage

FIELDS = ("gpus", "nodes", "hours", "gpu_type", "name", "image")
"""Fields of the picker that a link or a form may fill in."""
LONGEST_FIELD = 100
ENDED = 8
"""Ended reservations on the home page."""
HISTORY = 200
LOG_LINES = 80


class Home(Page):
    """``/``: the caller's reservations."""

    here = "home"

    async def get(self) -> None:
        service, subject = self.site.service, self.person.owner.subject
        ended, _ = await self.stored(service.reads.ended(subject, None, ENDED), ([], None))
        self.show(
            "home.html",
            standings=[
                (one, limit_view.source(one.scope), instant(one.renews))
                for one in self.site.presenter.standings(subject)
            ],
            live=[self.shown(record) for record in self.site.presenter.live(subject)],
            ended=[self.shown(record) for record in ended],
            pools=service.pools(),
        )


class New(Page):
    """``/new``: a POST creates an id and redirects to its spawn page, which is the picker."""

    here = "home"

    async def get(self) -> None:
        """Show what comes next. The picker fills in the fields of the link."""
        prefill = self.fields()
        words = ""
        if prefill.get("gpus", "").isdecimal():
            nodes = prefill.get("nodes", "1")
            words = page_view.size(int(prefill["gpus"]), int(nodes) if nodes.isdecimal() else 1)
        self.show("new.html", prefill=prefill, words=words, pending=None)

    def fields(self) -> dict[str, str]:
        """Return the fields of the picker that the link or form has."""
        given = {name: self.get_argument(name, "")[:LONGEST_FIELD] for name in FIELDS}
        return {name: value for name, value in given.items() if value}

    async def post(self) -> None:
        owner = self.person.owner
        minted = await self.site.service.mint(owner.subject)
        fields = self.fields()
        query = f"?{urlencode(fields)}" if fields else ""
        self.redirect(f"{self.hub_root}spawn/{quote(owner.hub_user, safe='@~')}/{minted}{query}", status=303)


class ReservationPage(Page):
    """``/reservations/ID``."""

    here = "home"

    async def find(self, id: str) -> Reservation | None:
        """Return the reservation, ``None`` for a new id of the caller. Raises ``Refused`` for unknown ids."""
        record = await self.site.service.reads.find(id)
        if record is not None:
            self.reservation = record.id
            return record
        minted = self.site.service.view.minted.get(id)
        if minted is None or minted.subject != self.person.owner.subject:
            raise Refused(
                Code.NOT_FOUND, f"There is no reservation {id[:64]}.", "It may belong to another Hub."
            )
        return None

    async def get(self, id: str) -> None:
        """``?open=1``: redirect to the server if it is ready, for browsers without scripts."""
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
        """Show the page. ``error``: the refusal of a form, ``asked``: the hours in it."""
        shown = self.shown(record)
        may_act = shown.r.mine or self.person.operator
        history: list[page_view.Happening] | None = None
        logs: Mapping[str, str] = {}
        if may_act:
            reading = self.site.service.reads.history(record.id, 0, HISTORY)
            entries, _ = await self.stored(reading, ([], None))
            found = self.site.presenter.history(entries, None)
            history = page_view.happenings(
                found.items, record.owner.subject, self.now, self.site.service.limits.people()
            )
            logs = await self._logs(record)
        keys = None
        if shown.r.mine and shown.r.ssh_command and shown.r.state == "ready":
            keys = await self.site.access.hosts(self.person.owner)
        again = {name: getattr(shown.r, name) or "" for name in FIELDS}
        again["hours"] = page_view.hours_field(shown.r.hours)
        self.show(
            "reservation.html",
            409 if error else 200,
            s=shown,
            may_act=may_act,
            history=history,
            logs=logs,
            slots=page_view.slots(shown.r.allocation),
            again=again,
            keys=keys,
            error=error,
            asked=asked,
        )

    async def _logs(self, record: Reservation) -> Mapping[str, str]:
        if not record.live or not record.attempt:
            return {}
        try:
            found = await self.site.service.reads.logs(record.id, LOG_LINES)
            return {source: uncoloured(text) for source, text in found.logs.items()}
        except Refused as refused:
            return {"not available": refused.message}


class ReservationAction(ReservationPage):
    """``/reservations/ID/extend``, ``/release``, ``/resume``, ``/share``, ``/unshare``: forms of the page."""

    async def get(self, id: str, action: str) -> None:  # type: ignore[override]
        """Redirect to the page: a browser reloads the address of a refused form."""
        del action
        self.redirect(f"{self.root}reservations/{quote(id)}", status=303)

    async def post(self, id: str, action: str) -> None:
        record = await self.find(id)
        if record is None:
            raise Refused(Code.NOT_FOUND, f"There is no reservation {id[:64]}.")
        person = self.person
        if record.owner.subject != person.owner.subject:
            raise Refused(
                Code.FORBIDDEN,
                f"Reservation {record.id} belongs to {record.owner.login}.",
                "Operators end and extend it on the operator page."
                if person.operator
                else "Only its owner and operators can do this.",
            )
        service, actor = self.site.service, person.owner.subject
        try:
            if action == "extend":
                hours = hours_of(self.get_argument("hours", ""))
                await service.extend(record.id, actor, millis(hours))
            elif action == "resume":
                await service.resume(record.id, actor)
            elif action == "share":
                await guests.share(self.site, record, person, self._login())
            elif action == "unshare":
                await guests.unshare(self.site, record, actor, self._login())
            else:
                await service.end(record.id, actor)
        except Refused as refused:
            latest = await self.find(id) or record
            await self.render_reservation(latest, refused, self.get_argument("hours", "")[:LONGEST_FIELD])
            return
        self.redirect(f"{self.root}reservations/{record.id}", status=303)

    def _login(self) -> str:
        login = self.get_argument("login", "").strip()[:LONGEST_FIELD]
        if not login:
            raise Refused(Code.INVALID_REQUEST, "The login of the other user is missing.", "Enter a login.")
        return login


class Pool(Page):
    """``/pool``: the timeline."""

    here = "pool"

    async def get(self) -> None:
        timeline = self.site.presenter.timeline(self.person)
        pools = self.site.service.pools()
        self.show(
            "pool.html",
            now=timeline.now,
            pools=[
                {
                    "pool": pool,
                    "drawing": draw(pool, timeline.now),
                    "held": _held(pool),
                    "outlook": found,
                }
                for pool, found in zip(timeline.pools, pools, strict=True)
            ],
        )


def _held(pool: wire.TimelinePool) -> list[dict[str, Any]]:
    """Return a row for each reservation that holds GPUs, the next to end first."""
    rows: dict[str, dict[str, Any]] = {}
    for node in pool.nodes:
        for bar in node.bars:
            if bar.state != "queued":
                row = rows.setdefault(
                    bar.id, {"bar": bar, "nodes": [], "size": page_view.size(bar.gpus, bar.nodes)}
                )
                row["nodes"].append(node.name)
    return sorted(rows.values(), key=lambda row: (row["bar"].end, row["bar"].id))


class Feed(PageHandler):
    """Read-only data for scripts on pages of the Hub or of JupyterLab."""

    def check_xsrf_cookie(self) -> None:
        """Check nothing: these scripts cannot read the XSRF token of the service."""

    async def prepare(self) -> None:
        """Authenticate without a redirect, because a script asks."""
        self.identity = await self.identify()
        if self.identity is None:
            raise Refused(Code.UNAUTHENTICATED, "You are not logged in.", "Reload the page.")
        self.limit(write=False)


class LabFeed(Feed):
    """``/reservations/ID/lab``: the reservation for JupyterLab, while its own server does not answer."""

    async def get(self, id: str) -> None:
        """Answer only the owner. The id is random, so other sites cannot guess it."""
        record = await self.site.service.reads.find(id)
        if record is None or record.owner.subject != self.person.owner.subject:
            raise Refused(Code.NOT_FOUND, f"You have no reservation {id[:64]}.")
        self.reservation = record.id
        self.answer(status_of(self.site, record))


class PickerFeed(Feed):
    """``/picker?hours=``: sizes and limits for the picker's script."""

    async def get(self) -> None:
        """Raise ``Refused`` for hours that are not possible; the page shows the message."""
        hours = hours_of(self.get_argument("hours", ""))
        service = self.site.service
        subject = self.person.owner.subject
        hold = hold_for(service.policy, service.view, subject, hours)
        found = service.availability(self.person.owner, hold)
        presenter = self.site.presenter
        pools = presenter.availability(found, hold, self.person).pools
        self.answer({"pools": pools, "limits": presenter.limits_in_words(subject)})


class Static(BaseHandler, StaticFileHandler):
    """Style sheet, scripts and icon. Browsers check for new versions with every page."""

    compute_etag = StaticFileHandler.compute_etag

    def initialize(self, site: Site, path: str) -> None:  # type: ignore[override]
        BaseHandler.initialize(self, site)
        StaticFileHandler.initialize(self, path)

    def set_extra_headers(self, _: str) -> None:
        self.set_header("Cache-Control", "no-cache")


class NoPage(Page):
    """Answers all other addresses outside the API."""

    async def get(self) -> None:
        raise Refused(Code.NOT_FOUND, NO_PAGE, "The link may be out of date.")

    post = put = patch = delete = get


def pages() -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Return addresses below the service's prefix with their handlers, for ``make_public_app``."""
    return [
        ("", Home, {}),
        ("new", New, {}),
        ("pool", Pool, {}),
        ("usage", UsagePage, {}),
        ("operator", Operator, {}),
        (r"operator/reservations/([^/]{1,64})", OperateReservation, {}),
        (r"operator/nodes/([^/]{1,256})", OperateNode, {}),
        ("help", Help, {}),
        ("login", LoginPage, {}),
        (r"client/([^/]{1,100}\.whl)", ClientDownload, {}),
        ("picker", PickerFeed, {}),
        (r"reservations/([^/]{1,64})/lab", LabFeed, {}),
        (r"reservations/([^/]{1,64})", ReservationPage, {}),
        (r"reservations/([^/]{1,64})/(extend|release|resume|share|unshare)", ReservationAction, {}),
        (r"static/([a-z-]+\.(?:css|js|svg))", Static, {"path": str(HERE / "static")}),
        (r"(?!api/|servers/|health/|metrics)(?:.+)", NoPage, {}),
    ]
