"""Domains, their keys, and the DNS records to publish."""

from types import NoneType
from typing import Any, Literal

from pydantic import Field

from api.schemas.base import Input, Output, PageOf, Text, Time, example
from shared.db.dkim_keys import SigningWarning as WarningRow
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
    "dkim_required": False,
    "dkim_expires_after_seconds": 604800,
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
_WARNING: dict[str, object] = {
    "code": "only_ed25519",
    "text": "only Ed25519 signs, which many receivers do not verify: activate an RSA key as well",
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
    dkim_required: bool = Field(description="Whether mail is refused rather than sent without a DKIM signature.")
    dkim_expires_after_seconds: int | None = Field(
        description="How long a DKIM signature holds (RFC 6376 3.5, `x=`); null: for ever."
    )
    created_at: Time

    @classmethod
    def of(cls, row: Row) -> "Domain":
        """Show a domain."""
        return cls(**_fields(row))


class DomainChange(Input):
    """What of a domain shall be otherwise; what is left out stays."""

    model_config = example({"dkim_required": True})

    # Made by factories, so that the document shows no default: a client that sent it would change what nobody asked for.
    dkim_required: bool = Field(
        default_factory=bool, description="Whether mail is refused rather than sent without a DKIM signature."
    )
    dkim_expires_after_seconds: int | None = Field(
        default_factory=NoneType,
        description="How long a DKIM signature holds, a day to a year: longer than mail may be under way behind us. Null: for ever.",
    )


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
    active: bool = Field(default=True, description="Whether it signs at once; false: once it is activated.")


class DkimKey(Output):
    """A key that signs the mail of a domain while it is active; the private half never leaves."""

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


class SigningWarning(Output):
    """Something about the DKIM signatures of a domain that should be otherwise."""

    model_config = example(_WARNING)

    code: Literal["unsigned", "only_ed25519", "key_unreadable"]
    text: str

    @classmethod
    def of(cls, warning: WarningRow) -> "SigningWarning":
        """Show a warning."""
        return cls(code=warning.code, text=warning.text)


class DomainWithRecords(Domain):
    """A domain with its keys and the DNS records to publish."""

    model_config = example({**_DOMAIN, "dkim_keys": [_KEY], "dns_records": [_RECORD], "warnings": [_WARNING]})

    dkim_keys: list[DkimKey]
    dns_records: list[DnsRecord]
    warnings: list[SigningWarning] = Field(description="What is not as it should be with its signatures.")

    @classmethod
    def detail(
        cls, row: Row, keys: list[KeyRow], records: list[RecordRow], warnings: list[WarningRow]
    ) -> "DomainWithRecords":
        """Show a domain and all that belongs to it."""
        return cls(
            **_fields(row),
            dkim_keys=[DkimKey.of(key) for key in keys],
            dns_records=[DnsRecord.of(record) for record in records],
            warnings=[SigningWarning.of(warning) for warning in warnings],
        )


def _fields(row: Row) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "name": row.name,
        "verified_at": row.verified_at,
        "disabled_at": row.disabled_at,
        "separators": list(row.catchall_separators),
        "bounce_domain": row.bounce_domain,
        "dkim_required": row.dkim_required,
        "dkim_expires_after_seconds": row.dkim_expires_after_seconds,
        "created_at": row.created_at,
    }


class DomainPage(PageOf[Domain]):
    """Domains, the oldest first."""

    model_config = example({"data": [_DOMAIN], "next_cursor": None})
