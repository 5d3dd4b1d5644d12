"""Which transport a mail takes, and which site that is."""

from dataclasses import replace

import pytest

from shared.db.lanes import SiteName, parse_site
from shared.db.routing import Parcel, Route, RoutingTable, Transport, names

PARCEL = Parcel(7, "a.test", "b.test")


def table(
    *, account: list[Route] | None = None, domain: list[Route] | None = None, all_: list[Route] | None = None
) -> RoutingTable:
    transports = {
        name: Transport(place, name, kind)  # type: ignore[arg-type] # names of kinds
        for place, (name, kind) in enumerate(
            [("relay", "smtp"), ("secure", "submissions"), ("plain", "direct"), ("proxy", "socks"), ("never", "fail")]
        )
    } | {"four": Transport(9, "four", "direct", ipv6=False)}
    return RoutingTable(1, transports, {(7, ""): account or [], (7, "a.test"): domain or [], (None, ""): all_ or []})


@pytest.mark.parametrize(
    ("domain", "entry", "means"),
    [
        ("b.test", "b.test", True),
        ("x.b.test", "b.test", False),
        ("b.test", ".b.test", True),
        ("x.b.test", ".b.test", True),
        ("y.x.b.test", ".b.test", True),
        ("xb.test", ".b.test", False),
        ("b.test", ".x.b.test", False),
        ("b.test", ".test", True),
        ("[IPv6:::1]", ".test", False),
    ],
)
def test_an_entry_means_a_domain_or_with_a_dot_all_below_too(domain: str, entry: str, means: bool) -> None:
    assert (entry in names(domain)) is means


@pytest.mark.parametrize(
    ("lists", "attempts", "transport"),
    [
        ({}, 0, None),
        ({"all_": [Route("relay")]}, 0, "relay"),
        ({"all_": [Route("relay", frozenset({"c.test"}))]}, 0, None),
        ({"all_": [Route("relay", frozenset({"a.test"}), frozenset({"c.test"}))]}, 0, None),
        ({"all_": [Route("relay", frozenset({".test"}), frozenset({"c.test", "b.test"}))]}, 0, "relay"),
        ({"all_": [Route("relay", min_attempts=3), Route("proxy")]}, 2, "proxy"),
        ({"all_": [Route("relay", min_attempts=3), Route("proxy")]}, 3, "relay"),
        ({"all_": [Route("relay")], "domain": [Route("proxy")]}, 0, "proxy"),
        ({"all_": [Route("relay")], "domain": [Route("proxy")], "account": [Route("never")]}, 0, "never"),
        ({"all_": [Route("relay")], "account": [Route("never", min_attempts=1)]}, 0, "relay"),
    ],
)
def test_the_first_route_that_matches_wins(lists: dict[str, list[Route]], attempts: int, transport: str | None) -> None:
    assert table(**lists).transport_for(replace(PARCEL, attempts=attempts)) == transport


def test_lists_of_others_say_nothing() -> None:
    routes = table(account=[Route("relay")], domain=[Route("proxy")])
    assert routes.transport_for(replace(PARCEL, account_id=8)) is None
    assert routes.transport_for(replace(PARCEL, account_id=None)) is None  # type: ignore[arg-type] # never like the list of all
    assert table(domain=[Route("proxy")]).transport_for(replace(PARCEL, sender_domain="x.a.test")) is None


@pytest.mark.parametrize(
    ("transport", "relay", "site"),
    [
        (None, None, "domain:b.test"),
        (None, "r.test:25", "relay:r.test:25"),
        ("relay", "r.test:25", "transport:relay"),
        ("secure", None, "transport:secure"),
        ("never", None, "transport:never"),
        ("unknown", "r.test:25", "transport:unknown"),
        ("plain", "r.test:25", "domain:b.test"),
        ("four", "r.test:25", "via:four:b.test"),
        ("proxy", None, "via:proxy:b.test"),
    ],
)
def test_a_transport_is_a_site_or_leads_to_one(transport: str | None, relay: str | None, site: str) -> None:
    routes = table(all_=[Route(transport)] if transport else [])
    assert routes.site(PARCEL, relay).key == site
    assert parse_site(site).key == site
    assert table().site(replace(PARCEL, transport=transport), relay).key == site
    assert routes.site(replace(PARCEL, is_test=True), relay) == SiteName("sandbox", "test")


def test_a_password_is_not_shown() -> None:
    assert "v1:" not in repr(Transport(1, "relay", "smtp", password_sealed="v1:x"))
