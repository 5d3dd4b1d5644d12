"""Runs commands of ``posthouse`` as an operator's shell does, against a real api."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


async def posthouse(*arguments: str, stdin: str = "", **environment: str) -> Done:
    """Run a command with these variables and no other ``POSTHOUSE_`` ones."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "posthouse",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**clean, **environment},
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    assert process.returncode is not None
    assert "Traceback" not in err.decode(), err.decode()
    return Done(process.returncode, out.decode(), err.decode())
