"""The suppression list."""

from pydantic import Field

from api.schemas.base import Input, Moment, Output, PageOf, Text, Time, example
from shared.models import Suppression as Row

_SUPPRESSION: dict[str, object] = {
    "id": "12",
    "address": "grace@example.org",
    "manual": False,
    "reason": "bounced",
    "code": 550,
    "enhanced_code": "5.1.1",
    "text": "5.1.1 no such user",
    "delivery": "771",
    "created_at": "2026-11-20T13:00:00.000000Z",
    "expires_at": None,
}


class NewSuppression(Input):
    """An address that nothing more shall be sent to."""

    model_config = example({"address": "grace@example.org", "reason": "asked us by phone"})

    address: Text
    reason: Text = Field(default="", max_length=1000)
    expires_at: Moment | None = Field(default=None, description="When it shall stop by itself; never, without it.")


class Suppression(Output):
    """An address that nothing is sent to. It stands for every spelling: in any case, and with any +suffix."""

    model_config = example(_SUPPRESSION)

    id: str
    address: str
    manual: bool = Field(description="Whether a person put it there.")
    reason: str
    code: int | None = Field(description="The SMTP reply code that led to it.")
    enhanced_code: str | None
    text: str | None
    delivery: str | None = Field(description="The id of the delivery whose failure led to it.")
    created_at: Time
    expires_at: Time | None

    @classmethod
    def of(cls, row: Row) -> "Suppression":
        """Show an entry."""
        return cls(
            id=str(row.id),
            address=row.address,
            manual=row.manual,
            reason=row.reason,
            code=row.code,
            enhanced_code=row.enhanced,
            text=row.text,
            delivery=str(row.delivery_id) if row.delivery_id is not None else None,
            created_at=row.created_at,
            expires_at=row.expires_at,
        )


class SuppressionPage(PageOf[Suppression]):
    """Entries of the suppression list, the newest first."""

    model_config = example({"data": [_SUPPRESSION], "next_cursor": None})
