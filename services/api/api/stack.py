"""Whether a whole stack runs: every service has a worker whose heart beats. The local stack's ``/readyz`` asks it."""

from shared.db.engine import Pool
from shared.db.workers import DEAD_AFTER_BEATS
from shared.errors import Unavailable
from shared.web.health import Check

SERVICES = ("api", "delivery", "hooks", "dsn-ingest")

_BEATING = "SELECT DISTINCT service FROM worker WHERE heartbeat_at > now() - make_interval(secs => $1)"


def stack_check(pool: Pool, beat_seconds: float) -> Check:
    """Return the check that every service has a worker with a fresh heartbeat; it names those that have none."""

    async def run() -> None:
        rows = await pool.fetch(_BEATING, beat_seconds * DEAD_AFTER_BEATS)
        beating = {row["service"].replace("_", "-") for row in rows}
        missing = [service for service in SERVICES if service not in beating]
        if missing:
            raise Unavailable(f"no worker of {', '.join(missing)} has a fresh heartbeat")

    return Check("stack", run)
