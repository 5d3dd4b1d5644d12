"""The supervisor, over real processes of a small service."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.waiting import eventually_sync
from posthouse.embedded.process import Interrupted
from posthouse.supervisor import Supervisor, Worker
from shared.errors import ConfigurationError

SERVICE = """
import http.server, json, os, signal, sys
from pathlib import Path

if os.environ.get("FAIL"):
    sys.exit("posthouse: " + os.environ["FAIL"])
if os.environ.get("DEAF"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if not Path(os.environ["NOT_READY"]).exists() else 503)
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
file = Path(os.environ["POSTHOUSE_ADDRESS_FILE"])
draft = file.with_suffix(".new")
draft.write_text(json.dumps({"http": f"127.0.0.1:{server.server_port}"}))
draft.replace(file)
server.serve_forever()
"""

Make = Callable[..., Supervisor]


class Stack:
    """A supervisor and what it said."""

    def __init__(self, folder: Path) -> None:
        (folder / "modules").mkdir()
        (folder / "modules" / "small_service.py").write_text(SERVICE)
        (folder / "run").mkdir()
        self.folder, self.said, self.asked = folder, [], False
        self.supervisor = Supervisor(
            logs=folder, run=folder / "run", held=(), tell=self.said.append, stopped=lambda: self.asked
        )

    said: list[str]

    def start(self, count: int = 1, **variables: str) -> list[Worker]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.folder / "modules"),
            "PORT": "0",
            "NOT_READY": str(self.folder / "not-ready"),
            **variables,
        }
        self.supervisor.start("small", "small_service", environment, count)
        return self.supervisor.workers


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    stack.supervisor.stop(0, hurried=lambda: True)


def pid(worker: Worker) -> int:
    assert worker.child is not None
    return worker.child.pid


def test_a_service_is_started_in_so_many_processes_and_waited_for(stack: Stack) -> None:
    workers = stack.start(2)
    (stack.folder / "not-ready").touch()
    stack.supervisor.wait_for_addresses("small")
    assert [worker.name for worker in workers] == ["small", "small/2"]
    assert len({worker.health for worker in workers}) == 2
    stack.asked = True
    with pytest.raises(Interrupted):
        stack.supervisor.wait_until_ready()
    stack.asked = False
    (stack.folder / "not-ready").unlink()
    stack.supervisor.wait_until_ready()


def test_a_process_that_ends_while_starting_is_reported_with_its_last_words(stack: Stack) -> None:
    stack.start(FAIL="POSTHOUSE_SECRET_KEY is missing")
    with pytest.raises(ConfigurationError) as caught:
        stack.supervisor.wait_for_addresses("small")
    assert "small ended with exit code 1 while starting: POSTHOUSE_SECRET_KEY is missing" in caught.value.message
    assert "small.log" in caught.value.message


def test_a_process_that_dies_is_started_again_and_reported(stack: Stack) -> None:
    (worker,) = stack.start()
    stack.supervisor.wait_for_addresses("small")
    port = worker.addresses["http"].rpartition(":")[2]
    stack.supervisor.pin("small", PORT=port)
    first = pid(worker)
    os.kill(first, signal.SIGKILL)
    changes: list[bool] = []

    def revived() -> bool:
        changes.append(stack.supervisor.tend())
        return worker.child is not None and worker.child.pid != first and bool(worker.addresses)

    eventually_sync(revived, timeout=30)
    assert any(changes)
    assert worker.addresses["http"].endswith(f":{port}")
    assert stack.said[0].startswith(f"small (process {first}) was ended by SIGKILL; it is started again in 0.5 s")
    assert stack.said[1] == f"small runs again (process {pid(worker)})"
    stack.supervisor.wait_until_ready()


def test_a_process_that_dies_at_once_is_tried_less_and_less_often(stack: Stack) -> None:
    (worker,) = stack.start(FAIL="no luck")
    ends = 3
    eventually_sync(lambda: stack.supervisor.tend() and worker.failures >= ends, timeout=60)
    pauses = [line.partition(" again in ")[2].partition(" s")[0] for line in stack.said if " again in " in line]
    assert pauses == ["0.5", "1", "2"]


def test_a_process_that_does_not_stop_is_ended(stack: Stack) -> None:
    (worker,) = stack.start(DEAF="1")
    stack.supervisor.wait_for_addresses("small")
    process = pid(worker)
    stack.supervisor.stop(0.2, hurried=lambda: False)
    assert worker.child is None
    assert not Path(f"/proc/{process}").exists() or sys.platform != "linux"
    assert stack.said == ["small did not stop within 0.2 s and was ended"]


def test_a_hurried_stop_does_not_wait(stack: Stack) -> None:
    (worker,) = stack.start(DEAF="1")
    stack.supervisor.wait_for_addresses("small")
    stack.supervisor.stop(3600, hurried=lambda: True)
    assert worker.child is None
    assert stack.said == []
