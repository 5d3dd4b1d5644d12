"""What an api has counted, read as Prometheus reads it."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

DOORS = ("submissions_total", "webapi_", "authentication")
"""The families that tell who came by which door, and what became of it."""
SMTP = ("smtp_",)
_PREFIX = "posthouse_api_"

Moved = dict[str, float]
"""By ``name{label values}``."""


async def series(http: httpx.AsyncClient, families: tuple[str, ...] = DOORS) -> Moved:
    """Return the values of these families; of histograms their counts."""
    text = (await http.get("/metrics")).text
    found: Moved = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix(_PREFIX)
            if name.startswith(families) and not name.endswith(("_bucket", "_sum", "_created")):
                found[f"{name}{{{','.join(sample.labels.values())}}}"] = sample.value
    return found


async def moved(http: httpx.AsyncClient, before: Moved, families: tuple[str, ...] = DOORS) -> Moved:
    """Return by how much each has moved since, without those that have not."""
    after = await series(http, families)
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def one(*names: str) -> Moved:
    """Return that each of these moves by one."""
    return dict.fromkeys(names, 1.0)
