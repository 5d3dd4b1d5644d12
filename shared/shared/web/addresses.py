"""Where a process listens, written for whoever started it with port 0."""

import os
from pathlib import Path

import orjson


def write_addresses(path: Path | None, **addresses: str) -> None:
    """Write ``{"http": "127.0.0.1:8081", ...}`` to ``path`` in one move, so that a reader never sees half; nothing where it is None."""
    if path is None:
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(orjson.dumps(addresses))
    draft.replace(path)
