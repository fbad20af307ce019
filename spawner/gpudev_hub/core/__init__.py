"""Pure decisions: reservations, their lifecycle, the plan. No I/O, no clock, no framework."""
