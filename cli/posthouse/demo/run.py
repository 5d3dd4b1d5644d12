"""Brings up the demo's stack, remote and receiver, tells the story, and takes everything down again, whatever happens."""

import base64
import json
import os
import shutil
import signal
import smtplib
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from posthouse.demo.receiver import Receiver
from posthouse.demo.remote import Remote
from posthouse.demo.story import NOBODY, Missing, Stage, Story
from posthouse.demo.timeline import Timeline
from posthouse.embedded.process import Child, Command, Interrupted
from posthouse.operator.client import Client, Refused
from posthouse.operator.place import Place
from posthouse.operator.show import say
from posthouse.signals import Signals
from shared.errors import ConfigurationError

_READY_SECONDS = 90.0
_STEP_SECONDS = 15.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it

T = TypeVar("T")


def run_demo() -> int:
    """Run the demo; return the exit code: 0 where every step was seen, 1 where one was not, 130 after Ctrl-C or SIGTERM.

    Raises:
        ConfigurationError: there is no folder for temporary files.
    """
    signals = Signals()
    signals.install()
    timeline = Timeline()
    folder = _folder()
    code = 1
    try:
        with ExitStack() as everything:
            _play(folder, timeline, signals, everything)
        code = 0
        timeline.chapter("Every step was seen")
        timeline.step(
            "done", "accepted, delivered, bounced, failed, suppressed, each with its webhook; all is stopped again"
        )
    except Interrupted:
        code = _INTERRUPTED
        timeline.step("stopped", "before the end, as you asked")
    except Missing as missing:
        timeline.step("missing", str(missing))
    except Refused as refused:
        timeline.step("missing", refused.message)
    except (smtplib.SMTPException, OSError) as error:
        timeline.step("missing", f"a way through: {type(error).__name__}: {error}")
    finally:
        if code == 1:
            # As they are, so that they can be copied whatever the width of the terminal.
            say(f"\nLogs of the services: {folder / 'data' / 'logs'}\nLog of the stack: {folder / 'stack.log'}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def _folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="posthouse-demo-"))
    except OSError as error:
        raise ConfigurationError(f"no folder can be made for temporary files ({error}): name one in TMPDIR") from None


def _play(folder: Path, timeline: Timeline, signals: Signals, everything: ExitStack) -> None:
    """Start everything, tell the story; what was started is stopped by ``everything``."""
    timeline.title("Posthouse: a mail goes out, and its fate comes back", f"on a throw-away stack in {folder}")
    remote = everything.enter_context(Remote(frozenset({NOBODY})))
    receiver = everything.enter_context(Receiver())
    timeline.step("start", "four services with a Postgres and a NATS of their own (posthouse local)")
    stack = Child(_local(folder, remote, receiver))
    everything.callback(_stop, stack, signals)

    def wait(look: Callable[[], T | None], what: str, seconds: float = _STEP_SECONDS) -> T:
        deadline = time.monotonic() + seconds
        while not (seen := look()):
            if signals.stop_asked():
                raise Interrupted
            if stack.exit_code is not None:
                raise Missing(f"{what}: the stack {stack.describe_end()}: {stack.last_words()}")
            if time.monotonic() >= deadline:
                raise Missing(f"{what}, within {seconds:.0f} s")
            time.sleep(_LOOK_SECONDS)
        return seen

    announcement = folder / "data" / "local.json"
    wait(announcement.exists, "that the stack is ready", _READY_SECONDS)
    local = json.loads(announcement.read_text())
    receiver.secret = base64.b64decode(local["webhook_secret"].removeprefix("whsec_"))
    timeline.step("ready", f"REST at {local['http_url']}/v1, mail comes in at {local['smtp']}")
    timeline.details(
        f"the remote, a mail server of the demo's own: {remote.address}",
        f"the application's endpoint for what becomes of its mail: {receiver.url}",
    )
    stage = Stage(
        client=everything.enter_context(Client(Place(local["http_url"], local["account_key"]))),
        operator=everything.enter_context(Client(Place(local["http_url"], local["admin_key"]))),
        smtp=local["smtp"],
        remote=remote,
        receiver=receiver,
        wait=wait,
    )
    Story(stage, timeline).tell()


def _local(folder: Path, remote: Remote, receiver: Receiver) -> Command:
    options: dict[str, str | Path] = {
        "--data-dir": folder / "data",
        "--bind": "127.0.0.1",
        "--http-port": "0",
        "--smtp-port": "0",
        "--submission-port": "0",
        "--submissions-port": "0",
        "--route": remote.address,
        "--outgoing-webhook": receiver.url,
    }
    arguments = [str(part) for option in options.items() for part in option]
    # What a shell has set for another stack is none of ours.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    return Command(
        [sys.executable, "-m", "posthouse", "local", *arguments], log=folder / "stack.log", environment=environment
    )


def _stop(stack: Child, signals: Signals) -> None:
    """Stop the stack in order; at once after a second Ctrl-C."""
    stack.send(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while not stack.wait(_LOOK_SECONDS):
        if signals.hurry_asked() or time.monotonic() >= deadline:
            # Its servers and services die with it.
            stack.kill()
