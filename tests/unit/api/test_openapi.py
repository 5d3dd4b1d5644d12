"""The OpenAPI document is what SDKs are generated from: it validates, and its names do not change by accident."""

import base64
import json
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from api.app import ROUTERS
from api.openapi import application
from api.schemas import (
    accounts,
    actions,
    batch,
    credentials,
    domains,
    endpoints,
    events,
    hold_rules,
    jobs,
    messages,
    operator_events,
    retry_schedules,
    summaries,
    suppressions,
    traffic_rules,
    webhooks,
)

# Published names: removing or changing one breaks somebody's client.
OPERATIONS = {
    "messages_send": "POST /v1/messages",
    "messages_list": "GET /v1/messages",
    "messages_send_batch": "POST /v1/messages/batch",
    "messages_get": "GET /v1/messages/{message}",
    "deliveries_list": "GET /v1/deliveries",
    "deliveries_get": "GET /v1/deliveries/{delivery}",
    "deliveries_hold_all": "POST /v1/deliveries/hold",
    "deliveries_release_all": "POST /v1/deliveries/release",
    "deliveries_cancel_all": "POST /v1/deliveries/cancel",
    "deliveries_hold": "POST /v1/deliveries/{delivery}/hold",
    "deliveries_release": "POST /v1/deliveries/{delivery}/release",
    "deliveries_cancel": "POST /v1/deliveries/{delivery}/cancel",
    "hold_rules_list": "GET /v1/hold-rules",
    "hold_rules_create": "POST /v1/hold-rules",
    "hold_rules_get": "GET /v1/hold-rules/{rule}",
    "hold_rules_remove": "DELETE /v1/hold-rules/{rule}",
    "jobs_list": "GET /v1/jobs",
    "jobs_get": "GET /v1/jobs/{job}",
    "suppressions_list": "GET /v1/suppressions",
    "suppressions_add": "POST /v1/suppressions",
    "suppressions_get": "GET /v1/suppressions/{suppression}",
    "suppressions_remove": "DELETE /v1/suppressions/{suppression}",
    "endpoints_list": "GET /v1/endpoints",
    "endpoints_create": "POST /v1/endpoints",
    "endpoints_get": "GET /v1/endpoints/{endpoint}",
    "endpoints_delete": "DELETE /v1/endpoints/{endpoint}",
    "endpoints_rotate_secret": "POST /v1/endpoints/{endpoint}/rotate-secret",
    "events_list": "GET /v1/events",
    "accounts_list": "GET /v1/accounts",
    "accounts_create": "POST /v1/accounts",
    "accounts_get": "GET /v1/accounts/{account}",
    "accounts_update": "PATCH /v1/accounts/{account}",
    "accounts_usage": "GET /v1/accounts/{account}/usage",
    "usage_get": "GET /v1/usage",
    "addresses_list": "GET /v1/accounts/{account}/addresses",
    "addresses_add": "POST /v1/accounts/{account}/addresses",
    "addresses_remove": "DELETE /v1/accounts/{account}/addresses/{address}",
    "domains_list": "GET /v1/accounts/{account}/domains",
    "domains_create": "POST /v1/accounts/{account}/domains",
    "domains_get": "GET /v1/accounts/{account}/domains/{domain}",
    "domains_update": "PATCH /v1/accounts/{account}/domains/{domain}",
    "domains_verify": "POST /v1/accounts/{account}/domains/{domain}/verify",
    "domains_disable": "POST /v1/accounts/{account}/domains/{domain}/disable",
    "domains_enable": "POST /v1/accounts/{account}/domains/{domain}/enable",
    "dkim_keys_create": "POST /v1/accounts/{account}/domains/{domain}/dkim-keys",
    "dkim_keys_activate": "POST /v1/accounts/{account}/domains/{domain}/dkim-keys/{key}/activate",
    "dkim_keys_deactivate": "POST /v1/accounts/{account}/domains/{domain}/dkim-keys/{key}/deactivate",
    "dkim_keys_remove": "DELETE /v1/accounts/{account}/domains/{domain}/dkim-keys/{key}",
    "keys_list": "GET /v1/accounts/{account}/keys",
    "keys_create": "POST /v1/accounts/{account}/keys",
    "keys_revoke": "DELETE /v1/accounts/{account}/keys/{key}",
    "logins_list": "GET /v1/accounts/{account}/logins",
    "logins_create": "POST /v1/accounts/{account}/logins",
    "logins_revoke": "DELETE /v1/accounts/{account}/logins/{login}",
    "operator_keys_list": "GET /v1/operator-keys",
    "operator_keys_create": "POST /v1/operator-keys",
    "operator_keys_revoke": "DELETE /v1/operator-keys/{key}",
    "transports_list": "GET /v1/transports",
    "transports_create": "POST /v1/transports",
    "transports_get": "GET /v1/transports/{transport}",
    "transports_update": "PATCH /v1/transports/{transport}",
    "transports_delete": "DELETE /v1/transports/{transport}",
    "routes_list": "GET /v1/routes",
    "routes_create": "POST /v1/routes",
    "routes_get": "GET /v1/routes/{route}",
    "routes_update": "PATCH /v1/routes/{route}",
    "routes_delete": "DELETE /v1/routes/{route}",
    "retry_schedules_list": "GET /v1/retry-schedules",
    "retry_schedules_put": "PUT /v1/retry-schedules/{schedule}",
    "retry_schedules_get": "GET /v1/retry-schedules/{schedule}",
    "retry_schedules_remove": "DELETE /v1/retry-schedules/{schedule}",
    "retry_schedules_use": "PUT /v1/accounts/{account}/retry-schedule",
    "traffic_rules_list": "GET /v1/traffic-rules",
    "traffic_rules_put": "PUT /v1/traffic-rules/{pattern}",
    "traffic_rules_get": "GET /v1/traffic-rules/{pattern}",
    "traffic_rules_remove": "DELETE /v1/traffic-rules/{pattern}",
    "operator_events_list": "GET /v1/operator-events",
    "operator_events_resolve": "POST /v1/operator-events/{event}/resolve",
}
SCHEMA_MODULES = (
    accounts,
    actions,
    batch,
    credentials,
    domains,
    endpoints,
    events,
    hold_rules,
    jobs,
    messages,
    operator_events,
    retry_schedules,
    summaries,
    suppressions,
    traffic_rules,
    webhooks,
)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    app = application()
    for router in ROUTERS:
        app.include_router(router)
    return app


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def test_operation_ids_are_unique_and_what_they_were(document: dict[str, Any]) -> None:
    found = [(operation["operationId"], f"{method} {path}") for method, path, operation in operations(document)]
    assert len({name for name, _ in found}) == len(found)
    assert dict(found) == OPERATIONS


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [name for value in node.values() for name in references(value)]
        return [name for value in node for name in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node


def test_every_schema_is_one_and_its_examples_fit_it(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        if "enum" in schema or name == "ProblemField":
            continue
        assert schema.get("examples"), f"{name} has no example"
        validator = Draft202012Validator({**schema, "components": {"schemas": schemas}})
        for example in schema["examples"]:
            problems = [error.message for error in validator.iter_errors(example)]
            assert not problems, (name, problems)


@pytest.mark.parametrize("module", SCHEMA_MODULES, ids=lambda module: module.__name__)
def test_the_examples_are_accepted_by_the_models(module: Any) -> None:
    models = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and "examples" in str(value.model_config)
    ]
    assert models
    for model in models:
        for example in model.model_config["json_schema_extra"]["examples"]:  # type: ignore[index,call-overload] # every model here has them
            model.model_validate_json(json.dumps(example))


def test_every_operation_says_what_it_is_and_how_it_fails(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for _, path, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"], path
        assert set(operation["tags"]) <= tags
        assert {"401", "403", "503"} <= operation["responses"].keys(), path
        for status, response in operation["responses"].items():
            if status[0] in "45":
                assert list(response["content"]) == ["application/problem+json"], (path, status)
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= operation["responses"].keys(), path


def test_it_is_3_1_with_credentials_servers_and_the_webhook(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["servers"][0]["url"] == "/"
    assert {scheme["scheme"] for scheme in document["components"]["securitySchemes"].values()} == {"bearer", "basic"}
    assert document["security"] == [{"apiKey": []}, {"login": []}]
    hook = document["webhooks"]["event"]["post"]
    assert hook["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/WebhookEvent")
    assert {parameter["name"] for parameter in hook["parameters"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }


def test_files_are_base64_and_addresses_have_two_forms(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Attachment"]["properties"]["content"]["contentEncoding"] == "base64"
    assert base64.b64decode(schemas["Attachment"]["examples"][0]["content"]) == b"Hello, world!\n"
    assert [form["type"] for form in schemas["Mailbox"]["anyOf"]] == ["string", "object"]
    assert "from" in schemas["SendMessage"]["properties"]
