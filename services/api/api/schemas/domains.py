"""Domains, their keys, and the DNS records to publish."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.base import Input, Output, PageOf, Text, Time, example
from shared.db.domains import DnsRecord as RecordRow
from shared.models import DkimKey as KeyRow
from shared.models import Domain as Row

_DOMAIN: dict[str, object] = {
    "id": "2",
    "name": "example.com",
    "verified_at": None,
    "disabled_at": None,
    "separators": ["+"],
    "bounce_domain": "bounces.example.com",
    "created_at": "2026-11-20T13:00:00.000000Z",
}
_KEY: dict[str, object] = {
    "id": "4",
    "selector": "posthouse-ed25519",
    "algorithm": "ed25519-sha256",
    "dns_record": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "active": True,
    "created_at": "2026-11-20T13:00:00.000000Z",
}
_RECORD: dict[str, object] = {
    "name": "_posthouse.example.com",
    "type": "TXT",
    "value": "posthouse-verification=mfrggzdfmztwq2lk",
    "purpose": "Proves that the domain is yours",
}


class NewDomain(Input):
    """A domain to send from."""

    model_config = example({"name": "example.com", "bounce_domain": "bounces.example.com"})

    name: Text
    separators: list[Text] = Field(
        default=["+"], description="What begins the ignored suffix of a local part; from_ids follow the first."
    )
    bounce_domain: Text | None = Field(
        default=None, description="Where bounces come back to; without it, to the sender's own address with a from_id."
    )


class Domain(Output):
    """A domain to send from."""

    model_config = example(_DOMAIN)

    id: str
    name: str
    verified_at: Time | None = Field(description="Since when it is proven; nothing is sent from it before.")
    disabled_at: Time | None = Field(description="Since when nothing is accepted from it, and what was accepted waits.")
    separators: list[str]
    bounce_domain: str | None
    created_at: Time

    @classmethod
    def of(cls, row: Row) -> "Domain":
        """Show a domain."""
        return cls(**_fields(row))


class DnsRecord(Output):
    """A DNS record to publish."""

    model_config = example(_RECORD)

    name: str
    type: Literal["TXT", "MX"]
    value: str = Field(description="A TXT in one piece; a zone file needs it in strings of at most 255 octets.")
    purpose: str

    @classmethod
    def of(cls, record: RecordRow) -> "DnsRecord":
        """Show a record."""
        return cls(name=record.name, type=record.type, value=record.value, purpose=record.purpose)


class NewDkimKey(Input):
    """A key that shall sign."""

    model_config = example({"algorithm": "ed25519-sha256", "selector": "december"})

    algorithm: Literal["ed25519-sha256", "rsa-sha256"]
    selector: Text | None = Field(default=None, description="Names the key in DNS.")


class DkimKey(Output):
    """A key that signs the mail of a domain; the private half never leaves."""

    model_config = example(_KEY)

    id: str
    selector: str
    algorithm: str
    dns_record: str
    active: bool
    created_at: Time

    @classmethod
    def of(cls, row: KeyRow) -> "DkimKey":
        """Show a key."""
        return cls(
            id=str(row.id),
            selector=row.selector,
            algorithm=row.algorithm,
            dns_record=row.dns_record,
            active=row.active,
            created_at=row.created_at,
        )


class DomainWithRecords(Domain):
    """A domain with its keys and the DNS records to publish."""

    model_config = example({**_DOMAIN, "dkim_keys": [_KEY], "dns_records": [_RECORD]})

    dkim_keys: list[DkimKey]
    dns_records: list[DnsRecord]

    @classmethod
    def detail(cls, row: Row, keys: list[KeyRow], records: list[RecordRow]) -> "DomainWithRecords":
        """Show a domain and all that belongs to it."""
        return cls(
            **_fields(row),
            dkim_keys=[DkimKey.of(key) for key in keys],
            dns_records=[DnsRecord.of(record) for record in records],
        )


def _fields(row: Row) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "name": row.name,
        "verified_at": row.verified_at,
        "disabled_at": row.disabled_at,
        "separators": list(row.catchall_separators),
        "bounce_domain": row.bounce_domain,
        "created_at": row.created_at,
    }


class DomainPage(PageOf[Domain]):
    """Domains, the oldest first."""

    model_config = example({"data": [_DOMAIN], "next_cursor": None})
