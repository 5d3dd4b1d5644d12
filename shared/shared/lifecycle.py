"""The states of a delivery and the moves between them, as one table.

The record (table ``delivery``) is written at acceptance and at settlement; while a delivery is live, its state is read off
its queue row by :func:`live_state`. ``claimed`` and ``started`` exist only there.
"""

from enum import StrEnum


class DeliveryState(StrEnum):
    """Where a delivery stands. The values are the public names."""

    QUEUED = "queued"
    HELD = "held"
    CLAIMED = "claimed"
    STARTED = "started"
    DELIVERED = "delivered"
    FAILED = "failed"
    SUPPRESSED = "suppressed"
    CANCELED = "canceled"


class CallState(StrEnum):
    """Where a call stands."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELED = "canceled"


_S = DeliveryState

MOVES: dict[DeliveryState | None, frozenset[DeliveryState]] = {
    None: frozenset({_S.QUEUED, _S.HELD, _S.SUPPRESSED}),
    # claimed -> queued: released unstarted. queued -> suppressed/held/canceled without a claim happens at acceptance or by an operator.
    _S.QUEUED: frozenset({_S.HELD, _S.CLAIMED, _S.SUPPRESSED, _S.FAILED, _S.CANCELED}),
    _S.HELD: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELED}),
    # The start gate is the only way on; what it refuses is settled as what it now is.
    _S.CLAIMED: frozenset({_S.STARTED, _S.QUEUED, _S.SUPPRESSED, _S.HELD, _S.CANCELED, _S.FAILED}),
    # started -> queued is the delayed attempt (or the lost worker), held where a hold came meanwhile; canceled is a cancel that
    # met a temporary failure.
    _S.STARTED: frozenset({_S.DELIVERED, _S.QUEUED, _S.HELD, _S.FAILED, _S.CANCELED}),
    # Settled. A later report adds its event and its time to the record; the state stays.
    _S.DELIVERED: frozenset(),
    _S.FAILED: frozenset(),
    _S.SUPPRESSED: frozenset(),
    _S.CANCELED: frozenset(),
}

SETTLED = frozenset({_S.DELIVERED, _S.FAILED, _S.SUPPRESSED, _S.CANCELED})


def may_move(before: DeliveryState | None, after: DeliveryState) -> bool:
    """Say whether a delivery in state ``before`` (None: not accepted yet) may become ``after``."""
    return after in MOVES[before]


def live_state(*, held: bool, claimed: bool, started: bool) -> DeliveryState:
    """Read the state of a live delivery off its queue row."""
    if started:
        return _S.STARTED  # a hold that came too late for this attempt: it counts for the next
    if held:
        return _S.HELD
    return _S.CLAIMED if claimed else _S.QUEUED
