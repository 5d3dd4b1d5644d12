"""Many messages in one call, and what became of each."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, SkipValidation

from api.idempotency import LONGEST
from api.schemas.base import Input, Output, Text, example
from api.schemas.messages import SendMessage, SendRawMessage, SentMessage
from shared.web.problems import PartialProblem

MOST: Final = 500
"""Messages in one call at most."""

_SEND: Final[dict[str, Any]] = {
    "from": "Ada Lovelace <ada@example.com>",
    "to": ["grace@example.org"],
    "subject": "Your order",
    "text": "It is on its way.\n",
    "idempotency_key": "order-4711-shipped",
}
_SEND_RAW: Final[dict[str, Any]] = {
    "raw": "RnJvbTogYWRhQGV4YW1wbGUuY29tDQpUbzogZ3JhY2VAZXhhbXBsZS5vcmcNCg0KSGVsbG8sIEdyYWNlLg0K"
}
_ACCEPTED: Final[dict[str, Any]] = {
    "status": "accepted",
    "message": SentMessage.model_config["json_schema_extra"]["examples"][0],  # type: ignore[index]  # it has one
}
_REFUSED: Final[dict[str, Any]] = {
    "status": "refused",
    "problem": PartialProblem.model_config["json_schema_extra"]["examples"][0],  # type: ignore[index]  # it has one
}

Key = Annotated[
    Text | None,
    Field(
        description="As the header `Idempotency-Key` of a single message. Without it, its place under the key of the batch.",
        examples=["order-4711-shipped"],
        json_schema_extra={"minLength": 1, "maxLength": LONGEST},
    ),
]


class BatchMessage(SendMessage):
    """A message of a batch."""

    model_config = example(_SEND)

    idempotency_key: Key = None


class BatchRawMessage(SendRawMessage):
    """A whole message of a batch."""

    model_config = example(_SEND_RAW)

    idempotency_key: Key = None


class SendBatch(Input):
    """Messages to send, each for itself."""

    model_config = example({"messages": [_SEND, _SEND_RAW]})

    # Not read as messages here: what is wrong with one of them is no matter of the others.
    messages: list[SkipValidation[BatchMessage | BatchRawMessage]] = Field(min_length=1, max_length=MOST)


class AcceptedItem(Output):
    """A message of a batch that was accepted."""

    model_config = example(_ACCEPTED)

    status: Literal["accepted"]
    message: SentMessage


class RefusedItem(Output):
    """A message of a batch that was refused; nothing of it is stored."""

    model_config = example(_REFUSED)

    status: Literal["refused"]
    problem: PartialProblem = Field(description="What the message alone would have been answered; `status` as in HTTP.")


class BatchResult(Output):
    """What became of each message of a batch."""

    model_config = example({"results": [_ACCEPTED, _REFUSED]})

    results: list[Annotated[AcceptedItem | RefusedItem, Field(discriminator="status")]] = Field(
        description="One for each message, in their order."
    )
