"""The cost of a claim does not grow with the backlog, nor with its shape: shown by its plan and its buffers, never by time."""

import json
from typing import Any

import asyncpg
import pytest

from integration.shared.db.queue_data import new_worker
from shared.db.engine import PLANS_BY_INDEX, SETTINGS
from shared.db.queue import DELIVERIES

SHAPES = {
    "a thousand rows of a hundred sites": (100, 100, 1_000),
    "a million rows of ten thousand sites": (10_000, 10_000, 1_000_000),
    "a million rows of one lane": (1, 1, 1_000_000),
    "a million rows of one site, ten thousand lanes": (1, 10_000, 1_000_000),
}
MOST_BUFFERS = 2_500
"""For up to 500 rows claimed. A scan of a million rows would be 10,000 and more."""


async def _fill(connection: asyncpg.Connection, sites: int, lanes: int, rows: int) -> None:
    await connection.execute(
        f"""INSERT INTO site (queue, name, conn_limit, next_at) SELECT 'delivery', 'domain:d' || n, 5, now() FROM generate_series(1, {sites}) n;
            INSERT INTO lane (site_id, account_id, next_at) SELECT (n - 1) % {sites} + 1, n, now() FROM generate_series(1, {lanes}) n;
            INSERT INTO delivery_queue (delivery_id, lane_id) SELECT n, n % {lanes} + 1 FROM generate_series(1, {rows}) n"""
    )


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]


async def _explain(connection: asyncpg.Connection, worker_id: int, claim: str) -> dict[str, Any]:
    """Explain a claim as the service runs it: prepared, with the generic plan that does not know its limits."""
    await connection.execute(f"PREPARE claim (bigint, bigint, bigint, bigint) AS {claim}")
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE claim ({worker_id}, 5, 4, 25)")
    await connection.execute("DEALLOCATE claim")
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


@pytest.mark.parametrize("statistics", ["of a full table", "of an empty table"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_the_claim_reads_by_index_and_touches_few_pages(database_url: str, shape: str, statistics: str) -> None:
    connection = await asyncpg.connect(database_url, server_settings={**SETTINGS, **PLANS_BY_INDEX})
    try:
        if statistics == "of an empty table":
            await connection.execute("ANALYZE")
        await _fill(connection, *SHAPES[shape])
        if statistics == "of a full table":
            await connection.execute("ANALYZE")
        worker_id = await new_worker(connection)
        plan = await _explain(connection, worker_id, DELIVERIES.claim_sql)
        scans = [node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"]
        assert scans == []
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < MOST_BUFFERS
        assert await connection.fetchval("SELECT count(*) FROM delivery_queue WHERE worker_id IS NOT NULL") > 0
    finally:
        await connection.close()


@pytest.mark.parametrize("statistics", ["of a full table", "of an empty table"])
async def test_a_claim_of_proven_sites_does_not_read_the_others(database_url: str, statistics: str) -> None:
    """A hundred thousand sites that have not answered yet stand in front of five that do."""
    connection = await asyncpg.connect(database_url, server_settings={**SETTINGS, **PLANS_BY_INDEX})
    try:
        if statistics == "of an empty table":
            await connection.execute("ANALYZE")
        await _fill(connection, 100_000, 100_000, 100_000)
        await connection.execute("UPDATE site SET proven = true, next_at = now() WHERE id > 99995")
        if statistics == "of a full table":
            await connection.execute("ANALYZE")
        worker_id = await new_worker(connection)
        plan = await _explain(connection, worker_id, DELIVERIES.claim_proven_sql)
        assert [node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"] == []
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < MOST_BUFFERS
        assert await connection.fetchval("SELECT count(*) FROM delivery_queue WHERE worker_id IS NOT NULL") == 5
    finally:
        await connection.close()
