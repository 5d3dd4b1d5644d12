"""What is done to deliveries: which ones, and what became of one."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.base import Input, Moment, Output, Text, example
from api.schemas.messages import DELIVERY_WITH_ATTEMPTS, DeliveryWithAttempts

_ID = r"^[0-9]{1,19}$"


class DeliverySelection(Input):
    """Which live deliveries: those that fulfil all conditions that are given. All of them have to be asked for by `all`."""

    model_config = example({"sender": "ada@example.com", "recipient_domain": "example.org", "state": "held"})

    all: bool = Field(default=False, description="Every live delivery; goes with no condition.")
    account: str | None = Field(
        default=None, pattern=_ID, description="Whose; for operators, who mean all accounts without it. No condition."
    )
    ids: list[Annotated[str, Field(pattern=_ID)]] | None = Field(default=None, min_length=1, max_length=500)
    message: str | None = Field(default=None, pattern=_ID, description="The id of their message.")
    tag: Text | None = Field(default=None, max_length=64)
    sender: Text | None = Field(default=None, description="The whole address in From, in any case.")
    sender_domain: Text | None = None
    recipient: Text | None = Field(default=None, description="The whole address, in any case.")
    recipient_domain: Text | None = None
    state: Literal["queued", "held"] | None = Field(
        default=None, description="`queued` is whatever is live and not held, also what is being sent."
    )
    accepted_before: Moment | None = None
    accepted_after: Moment | None = None
    due_before: Moment | None = None
    due_after: Moment | None = None

    @model_validator(mode="after")
    def _said(self) -> "DeliverySelection":
        conditions = self.model_fields_set - {"all", "account"}
        given = any(getattr(self, name) is not None for name in conditions)
        if not given and not self.all:
            raise PydanticCustomError(
                "selection_empty", 'No condition is given: say which deliveries, or "all": true for every live one'
            )
        if given and self.all:
            raise PydanticCustomError("selection_all", '"all" goes with no condition; leave out one or the other')
        return self


class DeliveryAction(Output):
    """What became of a delivery that something was asked of."""

    model_config = example({"result": "in_flight", "delivery": DELIVERY_WITH_ATTEMPTS})

    result: Literal["done", "unchanged", "in_flight"] = Field(
        description="`in_flight`: it is just being sent. If that fails for now, it is held or canceled; the event says what happened."
    )
    delivery: DeliveryWithAttempts
