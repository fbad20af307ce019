"""Many random histories, quickly: the rules of `test_decision_histories`, picked by a seeded generator.

Nothing is judged here, so that a thousand histories take seconds.
"""

from __future__ import annotations

from random import Random

from coreworld import HOUR, MINUTE, Driver, owner
from gpudev_hub.core.decisions.default_names import default_names
from gpudev_hub.core.effects import Decision
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.events import Event, Extend, Submit
from gpudev_hub.core.model import Request, Shape

from .test_decision_histories import ALIVE, PEOPLE, SHAPES, Histories, Judged


class Unjudged(Judged):
    """What really runs, and no judge."""

    def do(self, event: Event) -> Decision:
        decision = Driver.do(self, event)
        self.perform(decision)
        return decision

    def restart(self) -> None:
        Driver.restart(self)


class Life(Histories):
    """One history, from the instant `start` on."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.d = Unjudged()
        self.d.now = start

    def submit_one(self, who: str, shape: Shape, hold: int, name: int) -> None:
        self.count += 1
        request = Request(shape, "h100", hold * 15 * MINUTE, "base", f"n{name}" if name < 3 else None)
        ref = f"r{self.count}"
        try:
            self.d.do(Submit(ref, owner(who), request, f"request-{self.count}", default_names(ref)))
        except Refused:
            return

    def extend(self, which: int, quarters: int) -> None:
        if reservation := self.some(which, *ALIVE):
            try:
                self.d.do(Extend(reservation.id, reservation.owner.subject, quarters * 15 * MINUTE))
            except Refused:
                return

    def live(self, random: Random, steps: int) -> None:
        """Take random steps."""
        for _ in range(steps):
            which = random.randrange(10**6)
            who, shape = random.choice(PEOPLE), random.choice(SHAPES)
            name = random.choice(("node-1", "node-2"))
            steps_ = (
                lambda w=who, s=shape: self.submit_one(w, s, random.randint(1, 16), random.randint(0, 9)),
                lambda w=who, s=shape: self.submit_one(w, s, random.randint(1, 16), random.randint(0, 9)),
                self.answer,
                lambda: self.pass_time(random.randint(0, 240), True),
                lambda: self.pass_time(random.randint(0, 90), False),
                lambda w=which: self.extend(w, random.randint(1, 12)),
                lambda w=which: self.end(w),
                lambda w=which: self.crash(w),
                lambda w=which: self.start_fails(w, random.random() < 0.5, random.random() < 0.5),
                lambda w=which: self.stopped_by_its_user(w, random.random() < 0.5, random.random() < 0.5),
                lambda: self.service_away(random.randint(0, 200)),
                lambda: self.hub_away(random.randint(1, 300)),
                lambda n=name: self.node_seen(n, random.choice(("up", "down", "unknown", "gone"))),
                lambda n=name: self.operator(n, random.choice(("drain", "undrain", "lost"))),
                self.nodes_up,
                lambda w=who: self.owner_known(w, random.random() < 0.7),
            )
            random.choice(steps_)()


__all__ = ["HOUR", "Life"]
