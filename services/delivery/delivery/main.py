"""The wiring of the delivery service: the only place where its parts meet."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from random import Random

from delivery import __name__ as service
from delivery.attempt import Tools
from delivery.config import Settings
from delivery.dial import Dialer, DialSettings
from delivery.dsn import DsnWriter
from delivery.ledger import Ledger
from delivery.outcome import lost_too_often
from delivery.pipeline import Courier, SessionState
from delivery.prepare import BodyBudget
from delivery.route import Own, Router, split_relay
from delivery.seen import ProvidersSeen
from delivery.signing import Signers
from delivery.sites import Sites
from delivery.smtp import Timeouts
from delivery.traffic import TrafficRules
from delivery.way import Ways
from delivery.worker import Worker, WorkerSettings
from shared import log
from shared.bus import Bus
from shared.clock import utc_now
from shared.config import load
from shared.db import outcomes, workers
from shared.db.domains import is_received_here
from shared.db.engine import Connection, Pool, open_pool
from shared.db.lanes import Lanes
from shared.db.migrate import wait_until_ready
from shared.db.routing import Routing
from shared.db.sites import Backoff
from shared.dns.resolver import Resolver
from shared.errors import ConfigurationError
from shared.events import Subject
from shared.metrics import Metrics
from shared.security.keys import KeyRing
from shared.version import VERSION
from shared.web.addresses import write_addresses
from shared.web.health import Readiness, health_app, standard_checks
from shared.web.serve import serve
from shared.worker.lease import Lease
from shared.worker.operator_events import OperatorEvents

CLAIM_CONNECTIONS = 4


async def run(stop: asyncio.Event) -> None:
    """Run the service until ``stop`` is set."""
    settings = load(Settings)
    log.configure(service, settings.log_level)
    logger = log.get(__name__)
    _check(settings)
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
        bus = Bus(settings.nats_url, name=f"posthouse-{service}")
        delay = timedelta(seconds=settings.delivery_loss_delay_seconds)
        holding = workers.Holding(workers.DELIVERY_ROWS, exhausted, delay)
        lease = Lease(claims, bus, service, beat_seconds=settings.heartbeat_seconds, holding=holding)
        metrics = Metrics(service)
        told = OperatorEvents(pool, metrics)
        tools = _tools(settings, pool, bus, lease, told)
        courier = Courier(tools, metrics)
        worker = Worker(claims, courier, lease, _sizes(settings), Random())  # noqa: S311 - jitter, not a secret
        dsns = DsnWriter(pool, settings.hostname, metrics)
        _watch(metrics, tools, courier)
        bus.listen(Subject.DELIVERY_DUE, lambda _: worker.heard.set(), group=service)
        bus.listen(Subject.CONFIG_CHANGED, lambda _: tools.forget())
        health = await serve(
            health_app(service, Readiness(standard_checks(pool, bus), stopping=stop), metrics),
            settings.health_host,
            settings.health_port,
            setting="POSTHOUSE_HEALTH_PORT",
        )
        stack.push_async_callback(health.stop, 0)
        await lease.join(VERSION)
        stack.push_async_callback(lease.leave)
        bus.start()
        stack.push_async_callback(bus.close)
        write_addresses(settings.address_file, http=health.address)
        beating = asyncio.Event()  # the heart beats until the last mail in flight is settled
        async with asyncio.TaskGroup() as group:
            group.create_task(told.run(beating))
            group.create_task(lease.run(beating, lambda _: worker.heard.set()))
            group.create_task(_work(worker, tools, stop, beating))
            group.create_task(dsns.run(stop, poll_seconds=settings.poll_seconds, random=Random()))  # noqa: S311 - jitter, not a secret


def _watch(metrics: Metrics, tools: Tools, courier: Courier) -> None:
    sessions = metrics.gauge("sessions", "Slots being served, and sessions that wait for mail, by state.", ("state",))
    for state in SessionState:
        sessions.labels(state.value).set_function(partial(lambda state: float(courier.states[state]), state))
    alone = metrics.gauge("sites_left_alone", "Sites that this process found dead, until they are tried again.")
    alone.set_function(lambda: float(tools.sites.left_alone))


def _tools(settings: Settings, pool: Pool, bus: Bus, lease: Lease, told: OperatorEvents) -> Tools:
    ring = KeyRing([key.get_secret_value() for key in settings.secret_key])
    routing = Routing(seconds=settings.poll_seconds)
    ways = Ways(routing, ring, settings.hostname)
    return Tools(
        pool=pool,
        ledger=Ledger(pool, bus, lease),
        dialer=Dialer(_router(settings, pool), ways, _dial_settings(settings)),
        signers=Signers(pool, ring),
        bodies=BodyBudget(settings.delivery_body_budget),
        lanes=Lanes(),
        traffic=TrafficRules(pool),
        seen=ProvidersSeen(pool),
        sites=Sites(pool, _backoff(settings), Random()),  # noqa: S311 - jitter, not a secret
        routing=routing,
        operator_events=told,
        relay=settings.relay or None,
        clock=utc_now,
        random=Random(),  # noqa: S311 - jitter, not a secret
        recipients=settings.delivery_recipients,
    )


def _backoff(settings: Settings) -> Backoff:
    first = timedelta(seconds=settings.delivery_backoff_seconds)
    return Backoff(first, max(first, Backoff().most))


def _sizes(settings: Settings) -> WorkerSettings:
    return WorkerSettings(settings.delivery_sessions, settings.poll_seconds, settings.grace_seconds)


async def _work(worker: Worker, tools: Tools, stop: asyncio.Event, beating: asyncio.Event) -> None:
    try:
        await worker.run(stop)
        await tools.ledger.drain()
    finally:
        beating.set()
        await tools.sites.close()
        await tools.dialer.close()


async def exhausted(connection: Connection, delivery_ids: Sequence[int]) -> None:
    """Settle deliveries that were lost too often, in the reaper's transaction."""
    await outcomes.record(connection, [lost_too_often(delivery_id) for delivery_id in delivery_ids])


def _router(settings: Settings, pool: Pool) -> Router:
    async def receives(domain: str) -> bool:
        async with pool.acquire() as connection:
            return await is_received_here(connection, domain)

    servers = [part.strip() for part in (settings.dns_servers or "").split(",") if part.strip()]
    private = settings.delivery_allow_private or settings.env == "local"
    own = Own(settings.hostname, frozenset(filter(None, [settings.delivery_source_ip])), receives)
    port = settings.delivery_smtp_port
    return Router(Resolver(servers), Random(), own=own, smtp_port=port, allow_private=private)  # noqa: S311 - order of equals, not a secret


def _dial_settings(settings: Settings) -> DialSettings:
    seconds = settings.delivery_timeout_seconds or (30.0 if settings.env == "local" else None)
    return DialSettings(
        Timeouts.all(seconds) if seconds else Timeouts(),
        settings.delivery_source_ip,
        settings.delivery_idle_seconds,
    )


def _check(settings: Settings) -> None:
    if settings.relay:
        try:
            split_relay(settings.relay)
        except ValueError as error:
            raise ConfigurationError(f"POSTHOUSE_RELAY: {error}") from None
