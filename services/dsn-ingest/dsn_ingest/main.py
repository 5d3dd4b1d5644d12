"""The wiring of the dsn-ingest service: the only place where its parts meet."""

import asyncio
import secrets
from contextlib import AsyncExitStack
from random import Random

from dsn_ingest.addressing import Addressing
from dsn_ingest.config import Settings
from dsn_ingest.ingest import Ingest
from dsn_ingest.listener import InboundHandler
from dsn_ingest.simulate import Bouncer
from dsn_ingest.worker import Worker, give_up
from shared import log
from shared.bus import Bus
from shared.clock import utc_now
from shared.config import load
from shared.db import workers
from shared.db.engine import Pool, open_pool
from shared.db.ids import IdBlocks
from shared.db.lanes import Lanes
from shared.db.migrate import wait_until_ready
from shared.events import Subject
from shared.mail.from_id import FromIds
from shared.metrics import Metrics
from shared.security.keys import KeyRing
from shared.smtpd import SmtpdConfig, SmtpdMetrics
from shared.smtpd import serve as serve_smtp
from shared.smtpd.certificates import Certificate, certificate
from shared.version import VERSION
from shared.web.addresses import write_addresses
from shared.web.health import Readiness, health_app, standard_checks
from shared.web.serve import serve
from shared.worker.lease import Lease

SERVICE = "dsn-ingest"


async def run(stop: asyncio.Event) -> None:
    """Run the service until ``stop`` is set."""
    settings = load(Settings)
    log.configure(SERVICE, settings.log_level)
    logger = log.get(__name__)
    tls = certificate(settings.tls_cert_file, settings.tls_key_file)
    await wait_until_ready(
        settings.database_url,
        seconds=settings.startup_wait_seconds,
        tell=lambda line: logger.warning("waiting", detail=line),
    )
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(settings.database_url, size=settings.database_pool, service=SERVICE)
        )
        bus = Bus(settings.nats_url, name=f"posthouse-{SERVICE}")
        holding = workers.Holding(workers.INBOUND_ROWS, give_up)
        lease = Lease(pool, bus, SERVICE, beat_seconds=settings.heartbeat_seconds, holding=holding)
        metrics = Metrics(SERVICE)
        handler, worker = _parts(settings, pool, bus, lease, metrics)
        bus.listen(Subject.INBOUND_STORED, lambda _: worker.heard.set(), group=SERVICE)
        health = await serve(
            health_app(SERVICE, Readiness(standard_checks(pool, bus), stopping=stop), metrics),
            settings.health_host,
            settings.health_port,
            setting="POSTHOUSE_HEALTH_PORT",
        )
        stack.push_async_callback(health.stop, 0)
        listener = await serve_smtp(
            _smtpd(settings, tls, metrics), handler, settings.dsn_ingest_host, settings.dsn_ingest_port
        )
        stack.push_async_callback(listener.close, settings.grace_seconds)
        await lease.join(VERSION)
        stack.push_async_callback(lease.leave)
        bus.start()
        stack.push_async_callback(bus.close)
        host, port = listener.address
        write_addresses(settings.address_file, http=health.address, smtp=f"{host}:{port}")
        beating = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(lease.run(beating, lambda _: worker.heard.set()))
            if tls is not None:
                group.create_task(tls.watch(stop))
            try:
                await worker.run(stop, poll_seconds=settings.poll_seconds, random=Random())  # noqa: S311 - jitter, not a secret
                await listener.close(settings.grace_seconds)
            finally:
                beating.set()


def _parts(settings: Settings, pool: Pool, bus: Bus, lease: Lease, metrics: Metrics) -> tuple[InboundHandler, Worker]:
    ring = KeyRing([key.get_secret_value() for key in settings.secret_key])
    local = settings.env == "local"
    ids = IdBlocks()
    addressing = Addressing(FromIds([key.key[:16] for key in ring.reading("from_id")]), local=local)
    bouncer = Bouncer(pool, bus, ids, Lanes(), settings.hostname, utc_now, secrets.token_bytes) if local else None
    handler = InboundHandler(pool, addressing, Ingest(pool, bus, ids), bouncer, metrics)
    return handler, Worker(pool, bus, lease, addressing=addressing, ids=ids, metrics=metrics)


def _smtpd(settings: Settings, tls: Certificate | None, metrics: Metrics) -> SmtpdConfig:
    return SmtpdConfig(
        hostname=settings.hostname,
        max_size=settings.dsn_ingest_max_message_bytes,
        session_limit=settings.dsn_ingest_sessions,
        per_ip_limit=settings.dsn_ingest_sessions_per_ip,
        tls=tls.context if tls is not None else None,
        metrics=SmtpdMetrics(metrics),
        reuse_port=settings.dsn_ingest_reuse_port,
    )
