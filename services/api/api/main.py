"""The wiring of the api service: the only place where its parts meet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from random import Random

from fastapi import FastAPI

from api.app import SERVICE, create_app
from api.auth import Authenticator
from api.budget import ByteBudget
from api.config import Settings
from api.context import Context
from api.failures import FailureLimiter
from api.hold_upkeep import HoldUpkeep, sweeps
from api.housekeeping import Housekeeping
from api.jobs import Jobs
from api.metrics import ApiMetrics
from api.smtp.door import SubmissionHandler
from api.smtp.listeners import listening
from api.smtp.logins import Logins
from api.stack import stack_check
from api.submission import Limits
from api.submit import Rules, Submitter
from api.writer import Writer
from shared import log
from shared.bus import Bus
from shared.config import load
from shared.db.engine import Pool, create_engine, open_pool, session_factory
from shared.db.migrate import wait_until_ready
from shared.db.routing import Routing
from shared.dns.resolver import Resolver
from shared.events import Subject
from shared.mail.from_id import FromIds
from shared.metrics import Metrics
from shared.security.keys import KeyRing
from shared.smtpd import SmtpdMetrics
from shared.smtpd.certificates import Certificate, certificate
from shared.version import VERSION
from shared.web.addresses import write_addresses
from shared.web.health import Readiness, health_app, standard_checks
from shared.web.serve import RunningServer, serve
from shared.worker.lease import Lease

_FROM_ID_KEY_BYTES = 16


async def run(stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set, then answer what is in hand and leave.

    Raises:
        ConfigurationError: a setting is wrong, or what it names cannot be reached.
    """
    settings = load(Settings)
    log.configure(SERVICE, settings.log_level)
    logger = log.get(__name__)
    tls = certificate(settings.tls_cert_file, settings.tls_key_file)
    await wait_until_ready(
        settings.database_url,
        seconds=settings.startup_wait_seconds,
        tell=lambda line: logger.warning("waiting", detail=line),
    )
    async with contextlib.AsyncExitStack() as cleanup:
        size = settings.database_pool - _of_sessions(settings)
        pool = await cleanup.enter_async_context(open_pool(settings.database_url, size=size, service=SERVICE))
        bus = Bus(settings.nats_url, name=f"posthouse-{SERVICE}")
        cleanup.push_async_callback(bus.close)
        metrics = Metrics(SERVICE)
        context, writer = _parts(settings, pool, bus, metrics, cleanup)
        bus.listen(Subject.CONFIG_CHANGED, lambda _: context.authenticator.forget())
        bus.listen(Subject.CONFIG_CHANGED, lambda _: context.routing.forget())
        bus.listen(Subject.JOB_DUE, lambda _: context.jobs.heard.set())
        bus.start()
        lease = Lease(pool, bus, SERVICE, beat_seconds=settings.heartbeat_seconds)
        await lease.join(VERSION)
        cleanup.push_async_callback(lease.leave)
        checks = standard_checks(pool, bus)
        own = Readiness(checks, stopping=stop)
        of_stack = Readiness([*checks, stack_check(pool, settings.heartbeat_seconds)], stopping=stop)
        public = own if settings.env != "local" else of_stack
        async with (
            _server(settings, health_app(SERVICE, own, metrics), public=False) as health,
            _server(settings, create_app(context, public, metrics), public=True) as http,
            _smtp(settings, context, tls, stop, SmtpdMetrics(metrics)) as smtp,
        ):
            write_addresses(settings.address_file, http=http.address, health=health.address, **smtp)
            logger.info("listening", http=http.address, health=health.address, version=VERSION, **smtp)
            upkeep = HoldUpkeep(sweeps(context), seconds=settings.poll_seconds, random=Random())  # noqa: S311 - jitter
            loops = (Housekeeping(pool, bus).run, context.jobs.run, upkeep.run)
            await _until(stop, lease, (http, health), loops)
        await writer.drain()


def _parts(
    settings: Settings, pool: Pool, bus: Bus, metrics: Metrics, cleanup: contextlib.AsyncExitStack
) -> tuple[Context, Writer]:
    counted = ApiMetrics(metrics)
    ring = KeyRing([key.get_secret_value() for key in settings.secret_key])
    engine = create_engine(settings.database_url, size=_of_sessions(settings), service=SERVICE)
    cleanup.push_async_callback(engine.dispose)
    resolver = Resolver([part.strip() for part in (settings.dns_servers or "").split(",") if part.strip()])
    cleanup.push_async_callback(resolver.close)
    writer = Writer(pool, bus, counted)
    routing = Routing(seconds=settings.poll_seconds)
    rules = Rules(
        hostname=settings.hostname,
        relay=settings.relay,
        routing=routing,
        unverified_domains=settings.env == "local",
        limits=_limits(settings),
        from_ids=FromIds([derived.key[:_FROM_ID_KEY_BYTES] for derived in ring.reading("from_id")]),
    )
    budget = ByteBudget(settings.request_budget_bytes)
    counted.held.set_function(lambda: float(budget.held))
    context = Context(
        settings=settings,
        pool=pool,
        sessions=session_factory(engine),
        bell=bus,
        ring=ring,
        authenticator=Authenticator(pool, ring, counted, seconds=settings.poll_seconds),
        login_failures=FailureLimiter(),
        submitter=Submitter(pool, writer, rules, counted),
        routing=routing,
        jobs=Jobs(pool, bus, counted, poll_seconds=settings.poll_seconds, random=Random()),  # noqa: S311 - jitter
        resolver=resolver,
        outbound=settings.outbound_policy,
        budget=budget,
        metrics=counted,
    )
    return context, writer


def _limits(settings: Settings) -> Limits:
    return Limits(
        message_bytes=settings.max_message_bytes,
        recipients=settings.max_recipients,
        headers=settings.max_headers,
        header_bytes=settings.max_header_bytes,
        files=settings.max_files,
        extra_keys=settings.max_extra_keys,
        extra_bytes=settings.max_extra_bytes,
        tags=settings.max_tags,
        tag_characters=settings.max_tag_characters,
    )


def _of_sessions(settings: Settings) -> int:
    return max(1, settings.database_pool // 4)


@contextlib.asynccontextmanager
async def _server(settings: Settings, app: FastAPI, *, public: bool) -> AsyncIterator[RunningServer]:
    server = (
        await serve(
            app,
            settings.api_host,
            settings.api_port,
            setting="POSTHOUSE_API_PORT",
            reuse_port=settings.api_reuse_port,
        )
        if public
        else await serve(app, settings.health_host, settings.health_port, setting="POSTHOUSE_HEALTH_PORT")
    )
    try:
        yield server
    finally:
        await server.stop(settings.grace_seconds if public else 0)


@contextlib.asynccontextmanager
async def _smtp(
    settings: Settings, context: Context, tls: Certificate | None, stop: asyncio.Event, counted: SmtpdMetrics
) -> AsyncIterator[dict[str, str]]:
    metrics = context.metrics
    logins = Logins(context.authenticator, context.login_failures, metrics, plaintext=settings.env == "local")
    handler = SubmissionHandler(logins, context.submitter, metrics)
    watch = asyncio.create_task(tls.watch(stop)) if tls is not None else None
    try:
        async with listening(settings, handler, logins, tls, counted) as addresses:
            yield addresses
    finally:
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


async def _until(
    stop: asyncio.Event,
    lease: Lease,
    servers: Sequence[RunningServer],
    loops: Sequence[Callable[[asyncio.Event], Coroutine[None, None, None]]],
) -> None:
    """Wait for the stop; an end of anything else is an error, and raised."""
    beating = asyncio.Event()
    stopping = asyncio.create_task(stop.wait())
    beat = asyncio.create_task(lease.run(beating, lambda _: None))
    serving = [asyncio.create_task(server.wait()) for server in servers]
    looping = [asyncio.create_task(loop(beating)) for loop in loops]
    try:
        done, _ = await asyncio.wait({stopping, beat, *serving, *looping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if stopping not in done:
            message = "a part of the service ended by itself"
            raise RuntimeError(message)
    finally:
        beating.set()
        # A step or sweep that is cut off is rolled back, and made another time.
        for task in (stopping, *serving, *looping):
            task.cancel()
        await asyncio.gather(stopping, beat, *serving, *looping, return_exceptions=True)
