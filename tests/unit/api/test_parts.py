from ipaddress import ip_network

import pytest
from starlette.requests import Request

from api.budget import ByteBudget
from api.routes.guard import remote_address
from shared.errors import Overloaded

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def request(peer: str, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request({"type": "http", "client": (peer, 1), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "remote"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str, forwarded: list[str], remote: str) -> None:
    assert remote_address(request(peer, *forwarded), PROXIES) == remote


def test_a_budget_gives_back_what_was_taken() -> None:
    budget = ByteBudget(100)
    with budget.share() as first:
        first.reach(60)
        first.reach(50)
        with budget.share() as second, pytest.raises(Overloaded):
            second.reach(41)
        with budget.share() as third:
            third.reach(40)
            assert budget.held == 100
        assert budget.held == 60
    assert budget.held == 0


def test_one_request_larger_than_the_budget_passes_alone() -> None:
    budget = ByteBudget(100)
    with budget.share() as share:
        share.reach(500)
        with budget.share() as other, pytest.raises(Overloaded):
            other.reach(1)
