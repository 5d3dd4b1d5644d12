"""``/livez``, ``/readyz`` and ``/metrics``: the same three in every service.

Live means that the event loop turns. Ready means that this process can do its work; a check that is only a warning (NATS,
which costs latency and not mail) is reported and changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Response

from shared import log
from shared.bus import Bus
from shared.clock import monotonic
from shared.db.engine import Pool
from shared.errors import PosthouseError, Unavailable
from shared.metrics import CONTENT_TYPE, Metrics
from shared.web import problems

CHECK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold before this process is ready.

    Attributes:
        name: in the answer, e.g. ``postgres``.
        run: returns where it holds and raises where it does not; may be cancelled.
        required: False makes a failure a warning.
    """

    name: str
    run: Callable[[], Awaitable[object]]
    required: bool = True


def standard_checks(pool: Pool, bus: Bus) -> list[Check]:
    """Return what every service needs: Postgres; and NATS as a warning only, because without it work is found by polling."""

    async def postgres() -> None:
        await pool.fetchval("SELECT 1")

    async def nats() -> None:
        if bus.configured and not bus.connected:
            raise Unavailable("not connected: new work is found by polling")

    return [Check("postgres", postgres), Check("nats", nats, required=False)]


class Readiness:
    """Runs the checks of a process; remembers the last results only to log a change once."""

    def __init__(
        self, checks: Sequence[Check], *, stopping: asyncio.Event | None = None, seconds: float = CHECK_SECONDS
    ) -> None:
        """Take the checks, an event after which the process is not ready any more, and the time each check may take."""
        self._checks, self._stopping, self._seconds = tuple(checks), stopping, seconds
        self._last: dict[str, str] = {}

    async def report(self) -> tuple[bool, list[dict[str, Any]]]:
        """Run all checks at once and say whether the process is ready, and why."""
        results = await asyncio.gather(*(self._run(check) for check in self._checks))
        if self._stopping is not None and self._stopping.is_set():
            results.append(
                {
                    "name": "stopping",
                    "status": "failed",
                    "required": True,
                    "detail": "the process is stopping",
                    "milliseconds": 0.0,
                }
            )
        for result in results:
            self._log_change(result)
        return all(result["status"] != "failed" for result in results), results

    async def _run(self, check: Check) -> dict[str, Any]:
        started = monotonic()
        status, detail = "ok", None
        try:
            async with asyncio.timeout(self._seconds):
                await check.run()
        except TimeoutError:
            status, detail = "failed", f"no answer within {self._seconds:g} s"
        except PosthouseError as error:
            status, detail = "failed", error.message
        except Exception as error:  # noqa: BLE001 - whatever a check meets, the probe needs an answer; the text may hold a password
            status, detail = "failed", type(error).__name__
        if status == "failed" and not check.required:
            status = "warning"
        took = round((monotonic() - started) * 1000, 1)
        return {
            "name": check.name,
            "status": status,
            "required": check.required,
            "detail": detail,
            "milliseconds": took,
        }

    def _log_change(self, result: dict[str, Any]) -> None:
        name, status = result["name"], result["status"]
        before = self._last.get(name, "ok")
        self._last[name] = status
        if status != before:
            level = "info" if status == "ok" else "warning"
            getattr(log.get(__name__), level)("readiness_changed", check=name, detail=result["detail"], status=status)


def health_router(service: str, readiness: Readiness, metrics: Metrics) -> APIRouter:
    """Return the three routes, to be included in an application of a service."""
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> Response:
        return _json(200, {"status": "ok", "service": service})

    @router.get("/readyz")
    async def readyz() -> Response:
        ready, checks = await readiness.report()
        return _json(
            200 if ready else 503, {"status": "ready" if ready else "not ready", "service": service, "checks": checks}
        )

    @router.get("/metrics")
    async def exposition() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return router


def health_app(service: str, readiness: Readiness, metrics: Metrics) -> FastAPI:
    """Return an application that has only the three routes, for services that serve no other HTTP."""
    app = FastAPI(title=f"Posthouse {service}", openapi_url=None)
    app.include_router(health_router(service, readiness, metrics))
    problems.install(app, body_limit=1024)
    return app


def _json(status: int, document: dict[str, Any]) -> Response:
    # RFC 9111 5.2.2.5: an old answer about health is a wrong one.
    return Response(orjson.dumps(document), status, {"Cache-Control": "no-store"}, media_type="application/json")
