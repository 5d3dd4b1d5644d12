"""Sites and lanes by name. They are few and live long, so each process remembers their ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.db.engine import Connection

_SITE = """
WITH made AS (
    INSERT INTO site (queue, name, conn_limit, conn_most, proven) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (queue, name) DO NOTHING RETURNING id
)
SELECT id FROM made UNION ALL SELECT id FROM site WHERE queue = $1 AND name = $2 LIMIT 1
"""
_LANE = """
WITH made AS (
    INSERT INTO lane (site_id, account_id, stream, egress_pool) VALUES ($1, $2, $3, $4)
    ON CONFLICT (site_id, account_id, stream, egress_pool) DO NOTHING RETURNING id
)
SELECT id FROM made UNION ALL SELECT id FROM lane WHERE site_id = $1 AND account_id = $2 AND stream = $3 AND egress_pool = $4 LIMIT 1
"""

_SANDBOX_SLOTS = 5
"""Slots that simulate at once, over all processes: each ends in milliseconds, and mail that goes somewhere needs the others."""


@dataclass(frozen=True, slots=True)
class SiteName:
    """The next hop that limits count for.

    ``relay`` with ``host:port``, ``mx`` with the provider, ``domain`` with the recipient domain, ``transport`` with the name of
    one that is a next hop itself, ``via`` with ``transport:recipient domain`` for one that leads to many, or the sandbox.
    """

    kind: Literal["relay", "mx", "domain", "transport", "via", "sandbox"]
    name: str

    @property
    def key(self) -> str:
        """The site's name in its table."""
        return f"{self.kind}:{self.name}"


SANDBOX = SiteName("sandbox", "test")
"""Where mail of sandbox keys goes, whoever it is to: there is no hop behind it."""


CONNECTIONS: Final = {"relay": 20, "transport": 20, "mx": 5, "domain": 5, "via": 5, "sandbox": _SANDBOX_SLOTS}
"""What a site may have where no rule says otherwise."""


class Lanes:
    """Finds or makes the lane of one account for one site; remembers at most ``capacity`` of them."""

    def __init__(self, *, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._known: dict[tuple[SiteName, int], int] = {}

    async def find(self, connection: Connection, site: SiteName, account_id: int) -> int:
        """Return the lane's id. Call it outside a transaction: the row must outlive a rollback."""
        lane_id = self._known.get((site, account_id))
        if lane_id is None:
            most = CONNECTIONS[site.kind]
            known = site == SANDBOX  # at all others the first contact shows what they can take
            site_id = await _fetch_id(connection, _SITE, "delivery", site.key, most if known else 1, most, known)
            lane_id = await _fetch_id(connection, _LANE, site_id, account_id, "", "")
            if len(self._known) >= self._capacity:
                self._known.clear()
            self._known[site, account_id] = lane_id
        return lane_id


async def _fetch_id(connection: Connection, sql: str, *arguments: object) -> int:
    row_id: int | None = None
    while row_id is None:  # None: another transaction made it after our snapshot; the next one shows it
        row_id = await connection.fetchval(sql, *arguments)
    return row_id


def parse_site(key: str) -> SiteName:
    """Read the ``name`` of a site row of the delivery queue.

    Raises:
        ValueError: the row was written by something else.
    """
    kind, _, name = key.partition(":")
    match kind:
        case "relay" | "mx" | "domain" | "transport" | "via" | "sandbox" if ":" in key:
            return SiteName(kind, name)
        case _:
            message = f"site name {key!r} is none of relay:host:port, mx:provider, domain:name, transport:name, via:transport:domain and {SANDBOX.key}"
            raise ValueError(message)


async def relane(connection: Connection, worker_id: int, moves: Sequence[tuple[int, int]]) -> None:
    """Give back claimed deliveries to another lane, as ``(delivery id, lane id)``: their route changed since it was chosen."""
    await connection.execute(
        _RELANE, worker_id, [delivery_id for delivery_id, _ in moves], [lane_id for _, lane_id in moves]
    )


_RELANE = """
WITH moved AS (
    UPDATE delivery_queue q SET lane_id = m.lane_id, worker_id = NULL FROM unnest($2::bigint[], $3::bigint[]) AS m (delivery_id, lane_id)
    WHERE q.delivery_id = m.delivery_id AND q.worker_id = $1 AND q.started_at IS NULL
    RETURNING q.lane_id
)
INSERT INTO delivery_wake (lane_id) SELECT DISTINCT lane_id FROM moved
"""
