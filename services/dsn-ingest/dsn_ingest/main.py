"""The wiring of the dsn-ingest service: the only place where its parts meet."""

import asyncio
import secrets
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
from shared.db.engine import create_pool
from shared.db.ids import IdBlocks
from shared.db.lanes import Lanes
from shared.db.migrate import wait_until_ready
from shared.errors import ConfigurationError
from shared.events import Subject
from shared.mail.from_id import FromIds
from shared.metrics import Metrics
from shared.security.keys import KeyRing
from shared.smtpd import SmtpdConfig
from shared.smtpd import serve as serve_smtp
from shared.smtpd.certificates import Certificate, certificate
from shared.version import VERSION
from shared.web.addresses import write_addresses
from shared.web.health import Check, Readiness, health_app
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
    pool = await create_pool(settings.database_url, size=settings.database_pool, service=SERVICE)
    bus = Bus(settings.nats_url, name=f"posthouse-{SERVICE}")
    lease = Lease(pool, SERVICE, workers.INBOUND_ROWS, beat_seconds=settings.heartbeat_seconds, exhausted=give_up)
    metrics = Metrics(SERVICE)
    ring = KeyRing([key.get_secret_value() for key in settings.secret_key])
    local = settings.env == "local"
    ids = IdBlocks()
    addressing = Addressing(FromIds([key.key[:16] for key in ring.reading("from_id")]), local=local)
    bouncer = Bouncer(pool, bus, ids, Lanes(), settings.hostname, utc_now, secrets.token_bytes) if local else None
    handler = InboundHandler(pool, addressing, Ingest(pool, bus, ids), bouncer, metrics)
    worker = Worker(pool, bus, lease, addressing=addressing, ids=ids, metrics=metrics)
    bus.listen(Subject.INBOUND_STORED, lambda _: worker.heard.set(), group=SERVICE)
    await lease.join(VERSION)
    bus.start()

    async def postgres() -> None:
        await pool.fetchval("SELECT 1")

    async def nats() -> None:
        if not bus.connected:
            raise ConfigurationError("not connected: reports are found by polling")

    readiness = Readiness([Check("postgres", postgres), Check("nats", nats, required=False)], stopping=stop)
    health = await serve(
        health_app(SERVICE, readiness, metrics),
        settings.health_host,
        settings.health_port,
        setting="POSTHOUSE_HEALTH_PORT",
    )
    listener = await serve_smtp(_smtpd(settings, tls), handler, settings.dsn_ingest_host, settings.dsn_ingest_port)
    host, port = listener.address
    write_addresses(settings.address_file, http=health.address, smtp=f"{host}:{port}")
    beating = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(lease.run(beating, lambda _: worker.heard.set()))
            if tls is not None:
                group.create_task(tls.watch(stop))
            try:
                await worker.run(stop, poll_seconds=settings.poll_seconds, random=Random())  # noqa: S311 - jitter, not a secret
                await listener.close(settings.grace_seconds)
            finally:
                beating.set()
    finally:
        await lease.leave()
        await bus.close()
        await health.stop(0)
        await pool.close()


def _smtpd(settings: Settings, tls: Certificate | None) -> SmtpdConfig:
    return SmtpdConfig(
        hostname=settings.hostname,
        max_size=settings.dsn_ingest_max_message_bytes,
        session_limit=settings.dsn_ingest_sessions,
        per_ip_limit=settings.dsn_ingest_sessions_per_ip,
        tls=tls.context if tls is not None else None,
        reuse_port=settings.dsn_ingest_reuse_port,
    )
