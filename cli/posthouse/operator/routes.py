"""``posthouse transport`` and ``posthouse route``."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from posthouse.operator.command import LimitOption, Operator, command, given, new_group, read_password

_TRANSPORTS = {
    "id": "id",
    "name": "name",
    "kind": "kind",
    "host": "host",
    "port": "port",
    "tls": "tls",
    "user": "username",
}
_TRANSPORT = {
    "Transport": "id",
    "Name": "name",
    "Kind": "kind",
    "Host": "host",
    "Port": "port",
    "TLS": "tls",
    "User": "username",
    "Has a password": "has_password",
    "Mechanisms": "mechanisms",
    "EHLO name": "ehlo_name",
    "IPv4": "ipv4",
    "IPv6": "ipv6",
    "Code": "code",
    "Text": "text",
    "Created": "created_at",
}
_ROUTES = {
    "id": "id",
    "transport": "transport",
    "account": "account_id",
    "domain": "domain_id",
    "position": "position",
    "from": "sender_domains",
    "to": "recipient_domains",
    "attempts": "min_attempts",
}
_ROUTE = {
    "Route": "id",
    "Transport": "transport",
    "Account": "account_id",
    "Sender domain": "domain_id",
    "Position": "position",
    "From": "sender_domains",
    "To": "recipient_domains",
    "After attempts": "min_attempts",
    "Created": "created_at",
}

TransportArgument = Annotated[str, typer.Argument(metavar="TRANSPORT", help="The transport's name, or its id.")]
RouteArgument = Annotated[str, typer.Argument(metavar="ROUTE", help="The route's id.")]
PasswordOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password of --username from standard input.")
]

transport = new_group("transport", "Ways that mail can take: relays, proxies, one address family only, or a refusal.")
route = new_group("route", "Which mail takes which transport.")


def groups() -> Iterator[typer.Typer]:
    """Return the groups of this module."""
    yield from (transport, route)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """What may be said of a transport."""

    host: Annotated[str | None, typer.Option(help="Of a relay or proxy.")] = None
    port: Annotated[int | None, typer.Option(help="The usual one without it.")] = None
    tls: Annotated[str | None, typer.Option(help="Of a relay: verified (the default), unverified, none.")] = None
    username: Annotated[str | None, typer.Option(help="Of a relay or proxy that wants a login.")] = None
    mechanism: Annotated[list[str] | None, typer.Option(help="How to log in to a relay. Repeatable.")] = None
    ehlo_name: Annotated[str | None, typer.Option(help="Of socks: the name of the proxy's address.")] = None
    ipv4: Annotated[bool | None, typer.Option("--ipv4/--no-ipv4", help="Of direct and socks.")] = None
    ipv6: Annotated[bool | None, typer.Option("--ipv6/--no-ipv6", help="Of direct and socks.")] = None
    code: Annotated[int | None, typer.Option(help="Of fail: 400 to 599; 554 without it.")] = None
    text: Annotated[str | None, typer.Option(help="Of fail: why.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions:
    """What may be said of a route."""

    from_: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="DOMAIN", help="Domain of From; .example.com for all below. Repeatable."),
    ] = None
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="DOMAIN", help="Recipient domain, the same way. Repeatable.")
    ] = None
    min_attempts: Annotated[int | None, typer.Option(help="Only mail that was tried so often before.")] = None
    position: Annotated[int | None, typer.Option(help="Smaller ones are looked at first.")] = None


def _of_transport(options: TransportOptions, *, password_stdin: bool) -> dict[str, object]:
    fields = asdict(options)
    fields["mechanisms"] = fields.pop("mechanism") or None
    return given(**fields, password=read_password() if password_stdin else None)


def _of_route(options: RouteOptions) -> dict[str, object]:
    return given(
        sender_domains=options.from_ or None,
        recipient_domains=options.to or None,
        min_attempts=options.min_attempts,
        position=options.position,
    )


@command(transport, "create")
def create_transport(
    operator: Operator,
    name: Annotated[str, typer.Argument(help="What routes call it.")],
    kind: Annotated[str, typer.Argument(help="direct, smtp, submission, submissions, socks or fail.")],
    options: TransportOptions,
    *,
    password_stdin: PasswordOption = False,
) -> None:
    """Create a transport; mail takes it once a route names it."""
    new = {"name": name, "kind": kind, **_of_transport(options, password_stdin=password_stdin)}
    operator.output.item(operator.client.post("/v1/transports", new), _TRANSPORT)


@command(transport, "list")
def list_transports(operator: Operator, limit: LimitOption = 1000) -> None:
    """List the transports, the oldest first."""
    listing = operator.client.listed("/v1/transports", limit)
    operator.output.items(listing, _TRANSPORTS, "there are no transports yet")


@command(transport, "show")
def show_transport(operator: Operator, transport: TransportArgument) -> None:
    """Show a transport, without its password."""
    operator.output.item(operator.client.get(_path(operator, transport)), _TRANSPORT)


@command(transport, "update")
def update_transport(
    operator: Operator,
    transport: TransportArgument,
    options: TransportOptions,
    *,
    password_stdin: PasswordOption = False,
) -> None:
    """Change what is given of a transport; mail that waits takes it as it is then."""
    changes = _of_transport(options, password_stdin=password_stdin)
    operator.output.item(operator.client.patch(_path(operator, transport), changes), _TRANSPORT)


@command(transport, "remove")
def remove_transport(operator: Operator, transport: TransportArgument) -> None:
    """Remove a transport that no route names."""
    operator.client.delete(_path(operator, transport))
    operator.output.done(f"transport {transport} is removed", {"transport": transport, "removed": True})


@command(route, "create")
def create_route(
    operator: Operator,
    transport: Annotated[str, typer.Argument(help="The name of a transport.")],
    options: RouteOptions,
    *,
    account: Annotated[str | None, typer.Option(help="In the list of an account, by its id or name.")] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="DOMAIN", help="In the list of a domain of that account, by its id or name.")
    ] = None,
) -> None:
    """Send mail that matches over a transport, mail that waits too."""
    where: dict[str, object] = {}
    if account is not None:
        where["account_id"] = operator.find("/v1/accounts", account, ("name",), "account")
    if domain is not None:
        where = {"domain_id": _domain(operator, where.get("account_id"), domain)}
    made = operator.client.post("/v1/routes", {"transport": transport, **where, **_of_route(options)})
    operator.output.item(made, _ROUTE)


@command(route, "list")
def list_routes(operator: Operator, limit: LimitOption = 1000) -> None:
    """List the routes, the oldest first."""
    operator.output.items(operator.client.listed("/v1/routes", limit), _ROUTES, "there are no routes yet")


@command(route, "show")
def show_route(operator: Operator, route: RouteArgument) -> None:
    """Show a route."""
    operator.output.item(operator.client.get(f"/v1/routes/{_route(operator, route)}"), _ROUTE)


@command(route, "update")
def update_route(
    operator: Operator,
    route: RouteArgument,
    options: RouteOptions,
    *,
    transport: Annotated[str | None, typer.Option(help="The name of another transport.")] = None,
) -> None:
    """Change what is given of a route."""
    changes = {**given(transport=transport), **_of_route(options)}
    operator.output.item(operator.client.patch(f"/v1/routes/{_route(operator, route)}", changes), _ROUTE)


@command(route, "remove")
def remove_route(operator: Operator, route: RouteArgument) -> None:
    """Remove a route; mail that waits takes the way that is right then."""
    found = _route(operator, route)
    operator.client.delete(f"/v1/routes/{found}")
    operator.output.done(f"route {found} is removed", {"id": found, "removed": True})


def _path(operator: Operator, given_: str) -> str:
    return f"/v1/transports/{operator.find('/v1/transports', given_, ('name',), 'transport')}"


def _route(operator: Operator, given_: str) -> str:
    return operator.find("/v1/routes", given_, (), "route")


def _domain(operator: Operator, account: object, given_: str) -> str:
    if given_.isdecimal():
        return given_
    if account is None:
        raise typer.BadParameter("a domain's name needs --account, because accounts may have the same; or give its id")
    return operator.find(f"/v1/accounts/{account}/domains", given_, ("name",), "domain")
