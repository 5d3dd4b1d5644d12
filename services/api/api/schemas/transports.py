"""Transports, and the routes that lead to them."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.base import Input, Output, PageOf, Text, Time, example
from shared.models import Route as RouteRow
from shared.models import Transport as TransportRow

_TRANSPORT: dict[str, object] = {
    "id": "2",
    "name": "smarthost",
    "kind": "submission",
    "host": "smtp.example.net",
    "port": 587,
    "tls": "verified",
    "username": "posthouse",
    "has_password": True,
    "mechanisms": [],
    "ehlo_name": None,
    "ipv4": True,
    "ipv6": True,
    "code": None,
    "text": None,
    "created_at": "2026-11-20T13:00:00.000000Z",
}
_ROUTE: dict[str, object] = {
    "id": "4",
    "transport": "smarthost",
    "account_id": None,
    "domain_id": None,
    "position": 0,
    "sender_domains": [],
    "recipient_domains": ["example.org", ".example.net"],
    "min_attempts": 0,
    "created_at": "2026-11-20T13:00:00.000000Z",
}
_DOMAINS = "`example.com` means that domain, `.example.com` it and all below. Empty: any."

Kind = Literal["direct", "smtp", "submission", "submissions", "socks", "fail"]
Mechanism = Literal["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"]


class _TransportFields(Input):
    host: Text | None = Field(
        default=None, max_length=253, description="Of a relay or proxy: its name or address; it may be anywhere."
    )
    port: int | None = Field(
        default=None, description="Null: 25 for `smtp`, 587 for `submission`, 465 for `submissions`, 1080 for `socks`."
    )
    tls: Literal["verified", "unverified", "none"] | None = Field(
        default=None,
        description="Of `smtp` and `submission`: STARTTLS with a certificate that is checked (null means this), STARTTLS with any, or none.",
    )
    username: Text | None = Field(default=None, max_length=255, description="Of a relay or proxy that wants a login.")
    password: Text | None = Field(default=None, max_length=255, description="Never shown again.")
    mechanisms: list[Mechanism] | None = Field(
        default=None,
        description="How to log in to a relay. Null: any over checked TLS, else only those that do not show the password.",
    )
    ehlo_name: Text | None = Field(
        default=None, max_length=253, description="Of `socks`: the name of the proxy's address."
    )
    ipv4: bool | None = Field(default=None, description="Of `direct` and `socks`: whether IPv4 is used.")
    ipv6: bool | None = Field(default=None, description="The same for IPv6.")
    code: int | None = Field(
        default=None, description="Of `fail`: 4xx delays mail, 5xx fails it; 554 where it is null."
    )
    text: Text | None = Field(default=None, max_length=256, description="Of `fail`: why, in printable ASCII.")

    def options(self) -> dict[str, Any]:
        """Return what was given of it."""
        given = self.model_dump(exclude_unset=True, exclude={"name", "kind"})
        if given.get("mechanisms") is not None:
            given["mechanisms"] = tuple(given["mechanisms"])
        return given


class NewTransport(_TransportFields):
    """A way out. Each kind has fields of its own; others are refused."""

    model_config = example(
        {
            "name": "smarthost",
            "kind": "submission",
            "host": "smtp.example.net",
            "username": "posthouse",
            "password": "correct horse",
        }
    )

    name: Text = Field(max_length=63, description="a-z, 0-9, dot, hyphen, underscore; it stays.")
    kind: Kind = Field(
        description="`direct` to the MX hosts, `socks` to them through a SOCKS5 proxy, a relay by `smtp`, `submission` or `submissions` (implicit TLS), or `fail`."
    )


class TransportChanges(_TransportFields):
    """What is to be different of a transport; what is left out stays, null takes away."""

    model_config = example({"password": "another horse"})


class Transport(Output):
    """A way out, without its password."""

    model_config = example(_TRANSPORT)

    id: str
    name: str
    kind: str
    host: str | None
    port: int | None
    tls: str | None
    username: str | None
    has_password: bool
    mechanisms: list[str]
    ehlo_name: str | None
    ipv4: bool
    ipv6: bool
    code: int | None
    text: str | None
    created_at: Time

    @classmethod
    def of(cls, row: TransportRow) -> "Transport":
        """Show a transport."""
        return cls(
            id=str(row.id),
            name=row.name,
            kind=row.kind,
            host=row.host,
            port=row.port,
            tls=row.tls,
            username=row.username,
            has_password=row.password_sealed is not None,
            mechanisms=row.mechanisms,
            ehlo_name=row.ehlo_name,
            ipv4=row.ipv4,
            ipv6=row.ipv6,
            code=row.code,
            text=row.text,
            created_at=row.created_at,
        )


class TransportPage(PageOf[Transport]):
    """Transports, the oldest first."""

    model_config = example({"data": [_TRANSPORT], "next_cursor": None})


class NewRoute(Input):
    """A rule that sends mail over a transport."""

    model_config = example({"transport": "smarthost", "recipient_domains": ["example.org", ".example.net"]})

    transport: Text = Field(max_length=63, description="The name of a transport.")
    account_id: Text | None = Field(
        default=None,
        pattern=r"^[0-9]{1,19}$",
        description="Puts it in the list of an account, which is looked at first.",
    )
    domain_id: Text | None = Field(
        default=None, pattern=r"^[0-9]{1,19}$", description="Puts it in the list of a sender domain, looked at next."
    )
    position: int = Field(default=0, description="Smaller ones are looked at first; of equal ones the older.")
    sender_domains: list[Text] = Field(default=[], max_length=1000, description="Domains of From. " + _DOMAINS)
    recipient_domains: list[Text] = Field(default=[], max_length=1000, description=_DOMAINS)
    min_attempts: int = Field(default=0, description="Only mail that was tried so often before.")


class RouteChanges(Input):
    """What is to be different of a route; what is left out stays, and so does its list."""

    model_config = example({"position": 10})

    transport: Text = Field(default="", max_length=63)
    position: int = 0
    sender_domains: list[Text] = Field(default=[], max_length=1000)
    recipient_domains: list[Text] = Field(default=[], max_length=1000)
    min_attempts: int = 0


class Route(Output):
    """A rule that sends mail over a transport. In each list the first that matches wins: account, sender domain, all."""

    model_config = example(_ROUTE)

    id: str
    transport: str
    account_id: str | None
    domain_id: str | None
    position: int
    sender_domains: list[str]
    recipient_domains: list[str]
    min_attempts: int
    created_at: Time

    @classmethod
    def of(cls, row: RouteRow) -> "Route":
        """Show a route."""
        return cls(
            id=str(row.id),
            transport=row.transport,
            account_id=None if row.account_id is None else str(row.account_id),
            domain_id=None if row.domain_id is None else str(row.domain_id),
            position=row.position,
            sender_domains=row.sender_domains,
            recipient_domains=row.recipient_domains,
            min_attempts=row.min_attempts,
            created_at=row.created_at,
        )


class RoutePage(PageOf[Route]):
    """Routes, the oldest first."""

    model_config = example({"data": [_ROUTE], "next_cursor": None})
