"""The wiring of the hooks service: the only place where its parts meet."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from random import Random

import httpx

from hooks import __name__ as service
from hooks.bell import LocalBell
from hooks.call import Caller
from hooks.config import Settings
from hooks.fanout import FanOut
from hooks.ledger import Ledger
from hooks.metrics import HooksMetrics
from hooks.names import Names
from hooks.outcome import lost_too_often
from hooks.slot import Room, Tools, Windows
from hooks.transport import Limits, WebhookTransport
from hooks.worker import Worker
from shared import log
from shared.bus import Bus
from shared.clock import utc_now
from shared.config import load
from shared.db import workers
from shared.db.calls import RESPONSE_OCTETS, settle_calls
from shared.db.engine import Connection, open_pool
from shared.db.migrate import wait_until_ready
from shared.events import Subject
from shared.metrics import Metrics
from shared.security.keys import KeyRing
from shared.version import VERSION
from shared.web.addresses import write_addresses
from shared.web.health import Readiness, health_app, standard_checks
from shared.web.serve import serve
from shared.worker.lease import Lease

CLAIM_CONNECTIONS = 4
"""How long a database that does not answer is waited for at the end."""


async def run(stop: asyncio.Event) -> None:
    """Read the settings and run the service until ``stop`` is set."""
    settings = load(Settings)
    log.configure(service, settings.log_level)
    await run_with(settings, stop)


async def run_with(settings: Settings, stop: asyncio.Event) -> None:
    """Run the service with these settings until ``stop`` is set."""
    logger = log.get(__name__)
    await wait_until_ready(
        settings.database_url,
        seconds=settings.startup_wait_seconds,
        tell=lambda line: logger.warning("waiting", detail=line),
    )
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(settings.database_url, size=settings.database_pool, service=service)
        )
        claims = await stack.enter_async_context(
            open_pool(
                settings.database_url, size=CLAIM_CONNECTIONS, service=f"{service}-claims", synchronous_commit=False
            )
        )
        metrics = Metrics(service)
        bus = Bus(settings.nats_url, name=f"posthouse-{service}")
        bell = LocalBell(bus)
        delay = timedelta(seconds=settings.hooks_loss_delay_seconds)
        holding = workers.Holding(workers.CALL_ROWS, _exhausted, delay)
        lease = Lease(claims, bell, service, beat_seconds=settings.heartbeat_seconds, holding=holding)
        client = await stack.enter_async_context(_client(settings))
        counts = HooksMetrics(metrics)
        tools = _tools(settings, Ledger(pool, claims, bell, lease), client, counts)
        worker = Worker(claims, FanOut(claims, bell, counts), tools, bell, lease)
        bus.listen(Subject.EVENT_RECORDED, lambda _: bell.events_heard.set(), group=service)
        bus.listen(Subject.CALL_DUE, lambda _: bell.calls_heard.set(), group=service)
        await lease.join(VERSION)
        stack.push_async_callback(lease.leave)
        bus.start()
        stack.push_async_callback(bus.close)
        health = await serve(
            health_app(service, Readiness(standard_checks(pool, bus), stopping=stop), metrics),
            settings.health_host,
            settings.health_port,
            setting="POSTHOUSE_HEALTH_PORT",
        )
        stack.push_async_callback(health.stop, 0)
        write_addresses(settings.address_file, http=health.address)
        beating = asyncio.Event()  # the heart beats until the last call in flight is settled
        async with asyncio.TaskGroup() as group:
            group.create_task(lease.run(beating, lambda _: bell.calls_heard.set()))
            group.create_task(_work(worker, stop, beating, settings.grace_seconds))


def _tools(settings: Settings, ledger: Ledger, client: httpx.AsyncClient, metrics: HooksMetrics) -> Tools:
    ring = KeyRing([key.get_secret_value() for key in settings.secret_key])
    # Whatever the settings say: a slot holds at most a quarter of the process.
    per_endpoint = min(settings.hooks_per_endpoint, max(1, settings.hooks_in_flight // 4))
    return Tools(
        ledger=ledger,
        caller=Caller(client, ring, utc_now),
        room=Room(settings.hooks_in_flight),
        windows=Windows(per_endpoint),
        metrics=metrics,
        clock=utc_now,
        random=Random(),  # noqa: S311 - jitter, not a secret
        per_endpoint=per_endpoint,
        poll_seconds=settings.poll_seconds,
    )


def _client(settings: Settings) -> httpx.AsyncClient:
    limits = Limits(
        total_seconds=settings.hooks_timeout_seconds,
        connect_seconds=min(10.0, settings.hooks_timeout_seconds),
        body_bytes=RESPONSE_OCTETS,
    )
    transport = WebhookTransport(Names().resolve, settings.outbound_policy, limits=limits)
    # No redirects: their target was never checked. No proxies or netrc from the environment. The deadline is the transport's.
    return httpx.AsyncClient(
        transport=transport, follow_redirects=False, trust_env=False, timeout=settings.hooks_timeout_seconds
    )


async def _work(worker: Worker, stop: asyncio.Event, beating: asyncio.Event, grace_seconds: float) -> None:
    try:
        await worker.run(stop, grace_seconds=grace_seconds)
    finally:
        beating.set()


async def _exhausted(connection: Connection, call_ids: Sequence[int]) -> None:
    await settle_calls(connection, [lost_too_often(call_id) for call_id in call_ids])
