"""What a sender may ask for beside the mail itself, in whatever form it comes."""

from pydantic import Field

from api.schemas.base import Input, Moment, Text


class SendOptions(Input):
    """Options of one message; each form of a submission has them."""

    extra: dict[Text, Text] = Field(default={}, description="Comes back with every event; never part of the mail.")
    tags: list[Text] = Field(
        default=[], description="Come back with every event; deliveries and messages are listed by them."
    )
    send_at: Moment | None = Field(
        default=None,
        description="Not tried before; at most 60 days ahead. Now, without it.",
        examples=["2026-11-27T08:00:00+01:00"],
    )
    expires_at: Moment | None = Field(
        default=None,
        description="What is not delivered by then fails; after `send_at`, and at most 90 days ahead. By the retry schedule, without it.",
        examples=["2026-11-28T08:00:00+01:00"],
    )
    require_tls: bool | None = Field(
        default=None,
        description="true: only over verified TLS (RFC 8689); false: also where policy would ask for TLS; null: by policy.",
    )
    save_sent: bool = Field(default=False, description="Whether the account's mailbox Sent shall have a copy.")
