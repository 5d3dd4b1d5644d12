"""How many failed logins an address and its networks may have."""

from datetime import UTC, datetime, timedelta

import pytest

from api.failures import FailureLimiter

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def limiter(clock: Hands) -> FailureLimiter:
    return FailureLimiter(now=clock)


def fail(limiter: FailureLimiter, remote: str, times: int) -> None:
    for _ in range(times):
        assert limiter.may_try(remote)
        limiter.failed(remote)


def test_ten_failures_a_minute_then_none(limiter: FailureLimiter, clock: Hands) -> None:
    fail(limiter, "192.0.2.1", 10)

    assert not limiter.may_try("192.0.2.1")
    assert limiter.may_try("192.0.2.2")
    clock.now += timedelta(minutes=1)
    assert limiter.may_try("192.0.2.1")


def test_fifty_failures_a_day_then_none(limiter: FailureLimiter, clock: Hands) -> None:
    for _ in range(5):
        fail(limiter, "192.0.2.1", 10)
        clock.now += timedelta(minutes=1)

    assert not limiter.may_try("192.0.2.1")
    clock.now += timedelta(days=1)
    assert limiter.may_try("192.0.2.1")


def test_a_success_takes_back_the_failures_of_its_own_address_only(limiter: FailureLimiter) -> None:
    fail(limiter, "192.0.2.1", 9)
    fail(limiter, "192.0.2.2", 10)
    limiter.succeeded("192.0.2.1")

    fail(limiter, "192.0.2.1", 10)
    assert not limiter.may_try("192.0.2.2")


@pytest.mark.parametrize(
    ("members", "other_network"),
    [
        ([f"192.0.2.{host}" for host in range(64)], "192.0.2.64"),
        ([f"2001:db8:1:{net:x}::1" for net in range(1, 65)], "2001:db8:2::1"),
    ],
)
def test_a_network_is_limited_as_a_whole(limiter: FailureLimiter, members: list[str], other_network: str) -> None:
    for member in members[:3]:
        fail(limiter, member, 10)

    assert not limiter.may_try(members[-1])
    assert limiter.may_try(other_network)


def test_addresses_of_one_ipv6_network_and_both_spellings_of_ipv4_are_one_client(limiter: FailureLimiter) -> None:
    fail(limiter, "2001:db8::1", 10)
    fail(limiter, "::ffff:192.0.2.1", 10)

    assert not limiter.may_try("2001:db8::ffff")
    assert not limiter.may_try("192.0.2.1")


def test_what_is_no_address_is_counted_too(limiter: FailureLimiter) -> None:
    fail(limiter, "", 10)

    assert not limiter.may_try("")
