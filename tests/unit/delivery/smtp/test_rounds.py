"""Who shares a transaction: against servers of any limit, everybody has the result that they would have had alone."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from delivery.smtp.facts import RcptResult, ReplyFacts, Stage
from delivery.smtp.rounds import Rounds
from delivery.smtp.transaction import Held


@dataclass
class Server:
    """Takes so many recipients in a transaction, and none whose mailbox is full or unknown; answers as a transaction tells it."""

    limit: int
    stops_asking: bool
    transactions: int = 0
    asked: int = 0

    def take(self, recipients: tuple[str, ...]) -> Held:
        self.transactions += 1
        results: list[RcptResult] = []
        surplus: set[int] = set()
        accepted: list[int] = []
        for place, recipient in enumerate(recipients):
            if self.stops_asking and surplus:
                results.append(_refused(recipient, 452))
                surplus.add(place)
                continue
            self.asked += 1
            if recipient.startswith("unknown"):
                results.append(_refused(recipient, 550))
            elif recipient.startswith("full") or len(accepted) >= self.limit:
                results.append(_refused(recipient, 452))
                if place:
                    surplus.add(place)
            else:
                accepted.append(place)
                results.append(RcptResult(recipient, True, Stage.MESSAGE, 250, "", "OK"))
        return Held(tuple(results), frozenset(surplus), tuple(accepted))


def _refused(recipient: str, code: int) -> RcptResult:
    return RcptResult(recipient, False, Stage.RCPT, code, "", "no")


RECIPIENTS = st.lists(st.sampled_from(["good", "good", "good", "unknown"]), min_size=1, max_size=60)


@given(
    kinds=RECIPIENTS,
    full=st.lists(st.integers(0, 60), max_size=4),
    limit=st.integers(1, 12),
    announced=st.none() | st.integers(1, 12),
    stops_asking=st.booleans(),
)
def test_everybody_has_the_result_they_would_have_alone(
    kinds: list[str], full: list[int], limit: int, announced: int | None, stops_asking: bool
) -> None:
    for place in full:  # fewer than make a server look as if it had no room at all
        kinds.insert(place, "full")
    recipients = tuple(f"{kind}{number}@b.test" for number, kind in enumerate(kinds))
    rounds, server = Rounds(recipients, announced), Server(limit, stops_asking)
    while batch := rounds.next():
        assert announced is None or len(batch) <= announced
        rounds.take(server.take(batch))
    sent = rounds.end("never", None)
    assert [result.recipient for result in sent.results] == list(recipients)
    expected = {"good": 250, "unknown": 550, "full": 452}
    assert [result.code for result in sent.results] == [expected[kind] for kind in kinds]
    # Nobody is asked again and again: what is learned keeps the whole of it linear.
    assert server.asked <= 2 * len(recipients) + 2 * limit + 10
    assert rounds.learned is None or rounds.learned == limit


@given(count=st.integers(1, 300), announced=st.none() | st.integers(1, 400), stops_asking=st.booleans())
def test_a_server_without_room_is_soon_left_alone(count: int, announced: int | None, stops_asking: bool) -> None:
    recipients = tuple(f"good{number}@b.test" for number in range(count))
    rounds, server = Rounds(recipients, announced), Server(0, stops_asking)
    while batch := rounds.next():
        rounds.take(server.take(batch))
    sent = rounds.end("never", None)
    assert [(result.recipient, result.code) for result in sent.results] == [(name, 452) for name in recipients]
    assert server.asked <= count + 5
    assert server.transactions <= 5 + count / (announced or count)
    assert rounds.learned is None


@given(
    kinds=RECIPIENTS,
    limit=st.integers(1, 5),
    stop=st.integers(0, 5),
    farewell=st.none() | st.just(ReplyFacts(421, "4.3.2", "Closing")),
)
def test_whoever_still_waits_when_a_session_ends_was_not_touched(
    kinds: list[str], limit: int, stop: int, farewell: ReplyFacts | None
) -> None:
    recipients = tuple(f"{kind}{number}@b.test" for number, kind in enumerate(kinds))
    rounds, server = Rounds(recipients, None), Server(limit, False)
    while server.transactions < stop and (batch := rounds.next()):
        rounds.take(server.take(batch))
    sent = rounds.end("the session ended", farewell)
    assert [result.recipient for result in sent.results] == list(recipients)
    for result in sent.results:
        if result.untouched:
            assert (result.code, result.text) == ((421, "Closing") if farewell else (0, "the session ended"))
        else:
            assert result.code in {250, 550} or (result.code == 452 and result.recipient.startswith("full"))
