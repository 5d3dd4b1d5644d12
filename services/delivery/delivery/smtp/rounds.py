"""Which recipients of a mail share a transaction, and what became of each in the end."""

from collections import deque

from delivery.smtp.facts import RcptResult, ReplyFacts, Sent, Stage
from delivery.smtp.transaction import TOO_MANY, Held

_FRUITLESS = 5
"""Transactions in a row in which a server takes nobody for want of room; then it is believed to have none, whoever asks."""


class Rounds:
    """Deals the recipients of one mail out to transactions.

    Args:
        recipients: all of them.
        most: how many the server takes at a time (RFC 9422 RCPTMAX), None where it does not say.
    """

    def __init__(self, recipients: tuple[str, ...], most: int | None) -> None:
        self._recipients = recipients
        self._results: list[RcptResult | None] = [None] * len(recipients)
        self._waiting = deque(range(len(recipients)))
        self._announced = most
        self._most = most or len(recipients)
        self._batch: list[int] = []
        self._fruitless = 0
        self._guess: int | None = None
        self.learned: int | None = None
        """How many recipients the server turned out to take at a time."""

    def next(self) -> tuple[str, ...]:
        """Return the recipients of the next transaction; none where everybody has a result."""
        if len(self._waiting) <= self._most:
            self._batch = list(self._waiting)
            self._waiting.clear()
        else:
            self._batch = [self._waiting.popleft() for _ in range(self._most)]
        return tuple(self._recipients[index] for index in self._batch)

    def take(self, held: Held) -> None:
        """Note what became of the recipients that :meth:`next` returned last."""
        for index, result in zip(self._batch, held.results, strict=True):
            self._results[index] = result
        self._fruitless = self._fruitless + 1 if all(_no_room(result) for result in held.results) else 0
        if self._fruitless >= _FRUITLESS:
            # It takes no more of anybody: who has its answer keeps it, who has none is still asked for, once.
            self._most = len(self._recipients) if self._announced is None else self._announced
            self._waiting = deque(index for index in self._waiting if self._results[index] is None)
            return
        if self._guess is not None and not _no_room(held.results[0]):
            self.learned = self._guess  # who was too many before is welcome now: it was the count, and no full mailbox
        self._guess = None
        if not held.surplus:
            return
        if not held.accepted:
            self._most = 1
        elif max(held.surplus) > held.accepted[-1]:
            self._most = self._guess = len(held.accepted)  # it seems to count; if so, it will again
        self._waiting.extendleft(self._batch[place] for place in sorted(held.surplus, reverse=True))

    def end(self, why: str, farewell: ReplyFacts | None) -> Sent:
        """Return a result for everybody; who still waits was never told of in a transaction of its own.

        Args:
            why: there is no further transaction.
            farewell: the reply with which the server took leave, if it did.
        """
        said = farewell or ReplyFacts(0, "", why)
        for index in self._waiting:
            self._results[index] = RcptResult(
                self._recipients[index], False, Stage.MAIL, said.code, said.enhanced, said.text
            )
        return Sent(tuple(result for result in self._results if result is not None))


def _no_room(result: RcptResult) -> bool:
    return result.stage is Stage.RCPT and result.code in TOO_MANY
