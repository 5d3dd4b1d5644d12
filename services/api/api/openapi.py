"""The OpenAPI document: what FastAPI reads off the routes, and what it cannot know."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.schemas.batch import SendBatch
from api.schemas.messages import SendMessage, SendRawMessage
from api.schemas.webhooks import WebhookEvent
from shared.version import VERSION
from shared.web import problems

TITLE = "Posthouse"
DESCRIPTION = """\
HTTP in, SMTP out, webhooks back: a self-hosted email sending platform.

**Credentials.** An API key as `Authorization: Bearer ph_...`, or HTTP Basic with a login and its password (or a key's id and
secret). Keys and logins of an account see only that account; operators' keys create accounts and what belongs to them. A key that begins with `ph_test_` is one of the sandbox: what is handed in
with it goes nowhere, its outcome is simulated, and it sees only its own.

**Errors** are problem documents (RFC 9457). Decide by `code`; the texts are for people.

**Lists** come in pages: `{"data": [...], "next_cursor": ...}`. Pass `next_cursor` as `cursor` until it is null.

**Ids** are text. **Times** are RFC 3339, UTC. Unknown fields and parameters are refused.
"""
TAGS = [
    {"name": "messages", "description": "Hand in mail, and see what became of it."},
    {"name": "deliveries", "description": "One message to one recipient."},
    {"name": "hold rules", "description": "Conditions under which mail waits."},
    {"name": "jobs", "description": "Holds, releases and cancels of many deliveries."},
    {"name": "suppressions", "description": "Who is not sent to."},
    {"name": "endpoints", "description": "Where webhooks go."},
    {"name": "events", "description": "What happened, in order."},
    {"name": "usage", "description": "What is left of an account's limits."},
    {"name": "accounts", "description": "Tenants and their addresses; for operators."},
    {"name": "domains", "description": "Domains, DKIM keys, DNS records; for operators."},
    {"name": "credentials", "description": "API keys and logins; for operators."},
    {"name": "routes", "description": "Ways that mail takes: transports, and routes that lead to them; for operators."},
    {"name": "retry schedules", "description": "When mail is tried again; for operators."},
    {"name": "traffic rules", "description": "How much providers and domains are sent at once; for operators."},
    {"name": "operator events", "description": "What operators should look at; for operators."},
]
_SCHEMES: dict[str, Any] = {
    "apiKey": {"type": "http", "scheme": "bearer", "bearerFormat": "ph_<id>_<secret>", "description": "An API key."},
    "login": {
        "type": "http",
        "scheme": "basic",
        "description": "A login and its password, or the id of an API key and its secret.",
    },
}
_OF_BODIES = {
    "400": "`malformed_json` or `bad_input`",
    "413": "`too_large`",
    "415": "`unsupported_media_type`",
}

webhooks = APIRouter()


@webhooks.post("event", operation_id="webhooks_event", summary="An event", status_code=204, tags=["events"])
async def _event(
    body: WebhookEvent,
    webhook_id: Annotated[str, Header(alias="webhook-id", description="The same for every attempt at this call.")],
    webhook_timestamp: Annotated[
        str, Header(alias="webhook-timestamp", description="Seconds since 1970, of this attempt.")
    ],
    webhook_signature: Annotated[
        str, Header(alias="webhook-signature", description="`v1,<base64>`, several separated by spaces.")
    ],
) -> None:
    """Posted to your endpoints. Any status from 200 to 299 takes it; 410 switches the endpoint off; all else is tried again."""


class Application(FastAPI):
    """An application whose OpenAPI document is complete."""

    def openapi(self) -> dict[str, Any]:
        """Return the document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            _complete(document)
            self.openapi_schema = document
        return self.openapi_schema


def application() -> Application:
    """Return an application without routes."""
    return Application(
        title=TITLE,
        version=VERSION,
        summary="Send mail, and hear what became of it.",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        servers=[{"url": "/", "description": "This installation"}],
        license_info={"name": "MIT", "identifier": "MIT"},
        webhooks=webhooks,
        docs_url=None,
        redoc_url=None,
    )


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, made = models_json_schema(
        [(model, "validation") for model in (SendMessage, SendRawMessage, SendBatch)],
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(made["$defs"])
    for model in _models(BaseModel):
        if model.__name__ in schemas and model.__module__.startswith("api."):
            # FastAPI drops every null on its way, from examples too, where it is an answer.
            schemas[model.__name__]["examples"] = model.model_json_schema().get("examples", [])
    problems.describe(document)
    components["securitySchemes"] = _SCHEMES
    document["security"] = [{name: []} for name in _SCHEMES]
    problem = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for item in document["paths"].values():
        for operation in item.values():
            if "requestBody" in operation:
                for status, text in _OF_BODIES.items():
                    operation["responses"].setdefault(status, {"description": text, "content": problem})
    for item in document.get("webhooks", {}).values():
        for operation in item.values():
            operation["security"] = []  # the signature takes the place of credentials
            operation["responses"] = {"2XX": {"description": "Taken."}}
