"""``posthouse domain``."""

import shlex
from collections.abc import Iterator
from typing import Annotated

import typer

from posthouse.operator.client import Document
from posthouse.operator.command import AccountArgument, LimitOption, Operator, command, given, new_group
from posthouse.operator.show import plain, say
from shared.errors import ConfigurationError

_DOMAINS = {
    "id": "id",
    "name": "name",
    "verified": "verified_at",
    "bounces to": "bounce_domain",
    "disabled": "disabled_at",
}
_DOMAIN = {
    "Domain": "id",
    "Name": "name",
    "Verified": "verified_at",
    "Disabled": "disabled_at",
    "Separators": "separators",
    "Bounces come back to": "bounce_domain",
    "Must be signed": "dkim_required",
    "Signatures hold (s)": "dkim_expires_after_seconds",
    "Created": "created_at",
}
_KEY_HEADINGS = ("DKIM key", "selector", "algorithm", "signs", "created")
_KEY_FIELDS = ("id", "selector", "algorithm", "active", "created_at")
_RECORD_HEADINGS = ("why", "type", "name", "value")
_RECORD_FIELDS = ("purpose", "type", "name", "value")
_STRING_OCTETS = 255
_TTL = 3600

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The DKIM key's selector, or its id.")]
DomainArgument = Annotated[str, typer.Argument(metavar="DOMAIN", help="The domain's name, or its id.")]

domain = new_group("domain", "The domains that an account sends from, with DKIM keys and the DNS records to set.")


def groups() -> Iterator[typer.Typer]:
    """Return the groups of this module."""
    yield domain


@command(domain, "create")
def create(
    operator: Operator,
    account: AccountArgument,
    name: Annotated[str, typer.Argument(help="The domain, e.g. example.com.")],
    bounce_domain: Annotated[
        str | None,
        typer.Option(metavar="DOMAIN", help="Where bounces come back to; without it to the sender's own address."),
    ] = None,
    separator: Annotated[
        list[str] | None, typer.Option(help="Begins the ignored suffix of a local part; + without it. Repeatable.")
    ] = None,
) -> None:
    """Add a domain to an account with DKIM keys, and show the DNS records to set."""
    new = given(name=name, bounce_domain=bounce_domain, separators=separator or None)
    made = operator.client.post(f"{operator.account(account)}/domains", new)
    _show(operator, made)
    if not operator.output.as_json:
        then = f"posthouse domain verify {shlex.quote(account)} {plain(made.get('name'))}"
        say(f"\nPublish these records, then: {then}")


@command(domain, "list")
def list_(operator: Operator, account: AccountArgument, limit: LimitOption = 1000) -> None:
    """List the domains of an account, the oldest first."""
    listing = operator.client.listed(f"{operator.account(account)}/domains", limit)
    operator.output.items(listing, _DOMAINS, "the account has no domains yet")


@command(domain, "show")
def show(
    operator: Operator,
    account: AccountArgument,
    domain: DomainArgument,
    *,
    zone: Annotated[bool, typer.Option("--zone", help="Only the DNS records, as lines of a zone file.")] = False,
) -> None:
    """Show a domain, its DKIM keys, and the DNS records to set."""
    found = operator.client.get(_path(operator, account, domain))
    if zone:
        say("\n".join(zone_line(record) for record in found.get("dns_records", [])))
    else:
        _show(operator, found)


@command(domain, "verify")
def verify(operator: Operator, account: AccountArgument, domain: DomainArgument) -> None:
    """Look for the verification record in DNS, and let the account send from the domain if it is there."""
    found = operator.client.post(f"{_path(operator, account, domain)}/verify")
    operator.output.done(f"{plain(found.get('name'))} is verified since {plain(found.get('verified_at'))}", found)


@command(domain, "disable")
def disable(operator: Operator, account: AccountArgument, domain: DomainArgument) -> None:
    """Stop sending from a domain; what was accepted before waits."""
    found = operator.client.post(f"{_path(operator, account, domain)}/disable")
    operator.output.done(f"nothing more is accepted from {plain(found.get('name'))}", found)


@command(domain, "enable")
def enable(operator: Operator, account: AccountArgument, domain: DomainArgument) -> None:
    """Let an account send from a domain again; what waited goes out."""
    found = operator.client.post(f"{_path(operator, account, domain)}/enable")
    operator.output.done(f"the account may send from {plain(found.get('name'))} again", found)


@command(domain, "dkim-key")
def dkim_key(
    operator: Operator,
    account: AccountArgument,
    domain: DomainArgument,
    algorithm: Annotated[str, typer.Option(help="ed25519-sha256 or rsa-sha256.")] = "ed25519-sha256",
    selector: Annotated[str | None, typer.Option(help="Names the key in DNS; the usual name without it.")] = None,
    *,
    inactive: Annotated[
        bool, typer.Option("--inactive", help="Let it sign nothing before `dkim-activate`, once DNS shows its record.")
    ] = False,
) -> None:
    """Add a DKIM key, which signs from now on; publish its record at once."""
    path = _path(operator, account, domain)
    new = given(algorithm=algorithm, selector=selector, active=False if inactive else None)
    made = operator.client.post(f"{path}/dkim-keys", new)
    if operator.output.as_json:
        operator.output.document(made)
        return
    operator.output.table(_KEY_HEADINGS, [[made.get(field) for field in _KEY_FIELDS]])
    found = operator.client.get(path)
    name = f"{plain(made.get('selector'))}._domainkey.{plain(found.get('name'))}"
    say(f"\nPublish this record now:\n\n{zone_line({'name': name, 'type': 'TXT', 'value': made.get('dns_record')})}")


@command(domain, "dkim-activate")
def dkim_activate(operator: Operator, account: AccountArgument, domain: DomainArgument, key: KeyArgument) -> None:
    """Have a DKIM key sign from now on."""
    found = operator.client.post(f"{_key(operator, account, domain, key)}/activate")
    operator.output.done(f"{plain(found.get('selector'))} signs from now on", found)


@command(domain, "dkim-deactivate")
def dkim_deactivate(operator: Operator, account: AccountArgument, domain: DomainArgument, key: KeyArgument) -> None:
    """Have a DKIM key sign no longer; leave its record in DNS while mail that it signed is under way."""
    found = operator.client.post(f"{_key(operator, account, domain, key)}/deactivate")
    operator.output.done(f"{plain(found.get('selector'))} does not sign any more", found)


@command(domain, "dkim-remove")
def dkim_remove(operator: Operator, account: AccountArgument, domain: DomainArgument, key: KeyArgument) -> None:
    """Remove a DKIM key that is not active, for good; then take its record out of DNS."""
    path = _key(operator, account, domain, key)
    operator.client.delete(path)
    found = path.rpartition("/")[2]
    operator.output.done(f"DKIM key {found} is removed", {"id": found, "removed": True})


@command(domain, "update")
def update(
    operator: Operator,
    account: AccountArgument,
    domain: DomainArgument,
    *,
    dkim_required: Annotated[
        bool | None,
        typer.Option("--dkim-required/--no-dkim-required", help="Refuse mail rather than send it without a signature."),
    ] = None,
    dkim_expires_after: Annotated[
        str | None, typer.Option(metavar="SECONDS|none", help="How long a signature holds; none: for ever.")
    ] = None,
) -> None:
    """Change how the mail of a domain is signed."""
    change = given(dkim_required=dkim_required)
    if dkim_expires_after is not None:
        change["dkim_expires_after_seconds"] = _seconds(dkim_expires_after)
    if not change:
        raise ConfigurationError("say what to change, for example --dkim-required; --help lists what there is")
    _show(operator, operator.client.patch(_path(operator, account, domain), change))


def _seconds(text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise ConfigurationError(f"--dkim-expires-after is a number of seconds or none, not {text!r}")
    return int(text)


def _key(operator: Operator, account: str, domain: str, key: str) -> str:
    """Return the path of a DKIM key that was given by selector or id."""
    path = _path(operator, account, domain)
    for one in operator.client.get(path).get("dkim_keys", []):
        if key.lower() == one.get("selector") or key == one.get("id"):
            return f"{path}/dkim-keys/{one.get('id')}"
    raise ConfigurationError(f"there is no DKIM key {key!r}; `domain show` lists them")


def _path(operator: Operator, account: str, domain: str) -> str:
    base = f"{operator.account(account)}/domains"
    return f"{base}/{operator.find(base, domain.rstrip('.'), ('name',), 'domain')}"


def _show(operator: Operator, found: Document) -> None:
    output = operator.output
    output.item(found, _DOMAIN)
    if output.as_json:
        return
    say("")
    output.table(_KEY_HEADINGS, [[key.get(field) for field in _KEY_FIELDS] for key in found.get("dkim_keys", [])])
    for warning in found.get("warnings", []):
        say(f"\nWarning: {plain(warning.get('text'))}.")
    say("\nDNS records to set (to copy them: --zone, as lines of a zone file, or --json):\n")
    rows = [[record.get(field) for field in _RECORD_FIELDS] for record in found.get("dns_records", [])]
    output.table(_RECORD_HEADINGS, rows)


def zone_line(record: Document) -> str:
    """Return a DNS record as a line of a zone file (RFC 1035 5.1), a TXT in strings of at most 255 octets (3.3)."""
    kind, value = plain(record.get("type")), plain(record.get("value"))
    if kind == "TXT":
        pieces = [value[start : start + _STRING_OCTETS] for start in range(0, len(value), _STRING_OCTETS)]
        value = " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)
    elif kind == "MX":
        value += "."
    return f"{plain(record.get('name'))}. {_TTL} IN {kind} {value}"
