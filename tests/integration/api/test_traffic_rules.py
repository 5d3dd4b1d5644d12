"""What operators say about how much sites are sent at once."""

import httpx
import pytest

from integration.api.conftest import problem


async def test_rules_are_made_changed_listed_and_removed(operator: httpx.AsyncClient) -> None:
    made = await operator.put("/v1/traffic-rules/big.test", json={"connections": 3, "messages_per_second": 0.5})
    assert made.status_code == 200, made.text
    assert (made.json()["pattern"], made.json()["connections"], made.json()["messages_per_second"]) == (
        "big.test",
        3,
        0.5,
    )
    assert (await operator.get("/v1/traffic-rules/big.test")).json() == made.json()
    for pattern in ("*", ".example"):
        assert (await operator.put(f"/v1/traffic-rules/{pattern}", json={"connections": 1})).status_code == 200
    changed = await operator.put("/v1/traffic-rules/big.test", json={"messages_per_connection": 7})
    assert (changed.json()["connections"], changed.json()["messages_per_connection"]) == (None, 7)
    page = (await operator.get("/v1/traffic-rules", params={"limit": 2})).json()
    rest = (await operator.get("/v1/traffic-rules", params={"cursor": page["next_cursor"]})).json()
    assert [rule["pattern"] for rule in page["data"] + rest["data"]] == ["big.test", "*", ".example"]
    assert (await operator.delete("/v1/traffic-rules/*")).status_code == 204
    problem(await operator.delete("/v1/traffic-rules/*"), 404, "not_found")
    problem(await operator.get("/v1/traffic-rules/other.test"), 404, "not_found")


@pytest.mark.parametrize(
    ("pattern", "body", "field"),
    [
        ("Big.test", {"connections": 1}, "pattern"),
        ("*.test", {"connections": 1}, "pattern"),
        ("big.test", {}, "connections"),
        ("big.test", {"connections": 0}, "connections"),
        ("big.test", {"connections": 1001}, "connections"),
        ("big.test", {"messages_per_second": 0.001}, "messages_per_second"),
        ("big.test", {"messages_per_connection": 0}, "messages_per_connection"),
        ("big.test", {"recipients_per_transaction": 1001}, "recipients_per_transaction"),
    ],
)
async def test_a_rule_that_is_wrong_says_where(
    operator: httpx.AsyncClient, pattern: str, body: dict[str, float], field: str
) -> None:
    refused = await operator.put(f"/v1/traffic-rules/{pattern}", json=body)
    assert refused.status_code == 422
    assert field in refused.text
    assert (await operator.get("/v1/traffic-rules")).json()["data"] == []


async def test_accounts_have_no_say_in_it(client: httpx.AsyncClient) -> None:
    problem(await client.put("/v1/traffic-rules/big.test", json={"connections": 1}), 403, "forbidden")
