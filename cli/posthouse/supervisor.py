"""Keeps the processes of the services running: starts them, sees them die, starts them again with a growing pause."""

import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.embedded.process import Child, Command, Tell, wait_for
from shared.errors import ConfigurationError

START_SECONDS = 90.0
"""How long a service may take until it is ready."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_HEALTHY_SECONDS = 60.0
_PROBE_SECONDS = 3.0
_STOP_POLL_SECONDS = 0.02


def pause_after(failures: int) -> float:
    """Return the seconds to wait before a process is started again, after so many ends in a row."""
    return float(min(_FIRST_PAUSE * 2 ** max(failures - 1, 0), _LONGEST_PAUSE))


@dataclass(slots=True)
class Worker:
    """One process of a service, through all its lives."""

    service: str
    number: int
    address_file: Path
    child: Child | None = None
    started: float = 0.0
    failures: int = 0
    due: float | None = None
    """When to start it again; None while it runs."""
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The service, with a number where it is not the first process."""
        return self.service if self.number == 1 else f"{self.service}/{self.number}"

    def read_addresses(self) -> bool:
        """Read where it listens; False while it has not said so."""
        try:
            content = json.loads(self.address_file.read_text())
        except FileNotFoundError:
            return False
        self.addresses = {str(name): str(address) for name, address in content.items()}
        return True

    @property
    def health(self) -> str | None:
        """Where it answers ``/readyz``: at ``health``, at ``http`` where it has no other HTTP."""
        return self.addresses.get("health") or self.addresses.get("http")


class Supervisor:
    """The processes of all services."""

    def __init__(
        self, *, logs: Path, run: Path, held: tuple[int, ...], tell: Tell, stopped: Callable[[], bool]
    ) -> None:
        """Take the folders for logs and address files, descriptors the processes keep open, and who hears and is asked."""
        self._logs, self._run, self._held, self._tell, self._stopped = logs, run, held, tell, stopped
        self._environments: dict[str, dict[str, str]] = {}
        self._modules: dict[str, str] = {}
        self.workers: list[Worker] = []

    def of(self, service: str) -> list[Worker]:
        """Return the processes of a service."""
        return [worker for worker in self.workers if worker.service == service]

    def start(self, service: str, module: str, environment: Mapping[str, str], count: int) -> None:
        """Start the processes of a service, which runs as ``python -m module``."""
        self._environments[service], self._modules[service] = dict(environment), module
        for number in range(1, count + 1):
            worker = Worker(service, number, self._run / f"{service}-{number}.json")
            self.workers.append(worker)
            self._launch(worker)

    def add(self, service: str, count: int) -> None:
        """Start more processes of a service, up to ``count``."""
        for number in range(len(self.of(service)) + 1, count + 1):
            worker = Worker(service, number, self._run / f"{service}-{number}.json")
            self.workers.append(worker)
            self._launch(worker)

    def pin(self, service: str, **variables: str) -> None:
        """Change what the next processes of a service are told, e.g. the port its first one was given."""
        self._environments[service].update(variables)

    def wait_for_addresses(self, service: str) -> dict[str, str]:
        """Wait until every process of a service listens; return the addresses of the first.

        Raises:
            ConfigurationError: one ended instead, or did not listen in time.
            Interrupted: a stop was asked for.
        """
        workers = self.of(service)
        self._wait(workers, lambda worker: worker.read_addresses(), "does not listen")
        return workers[0].addresses

    def wait_until_ready(self) -> None:
        """Wait until every process answers ``/readyz`` with 200.

        Raises:
            ConfigurationError: one ended instead, or did not get ready in time.
            Interrupted: a stop was asked for.
        """
        self._wait(self.workers, lambda worker: _ready(worker.health), "is not ready")

    def _wait(self, workers: Sequence[Worker], done: Callable[[Worker], bool], complaint: str) -> None:
        waiting = list(workers)

        def all_done() -> bool:
            for worker in waiting:
                self._fail_if_ended(worker)
            waiting[:] = [worker for worker in waiting if not done(worker)]
            return not waiting

        if not wait_for(all_done, seconds=START_SECONDS, stopped=self._stopped):
            names = ", ".join(worker.name for worker in waiting)
            log = waiting[0].child.log if waiting[0].child else self._logs
            raise ConfigurationError(f"{names} {complaint} after {START_SECONDS:.0f} s: see {log}")

    def _fail_if_ended(self, worker: Worker) -> None:
        child = worker.child
        if child is not None and child.exit_code is not None:
            words = _told(child.last_words())
            raise ConfigurationError(f"{worker.name} {child.describe_end()} while starting: {words} (see {child.log})")

    def tend(self) -> bool:
        """Look after every process once; return whether process ids or addresses have changed."""
        changed, now = False, time.monotonic()
        for worker in self.workers:
            child = worker.child
            if child is not None and child.exit_code is not None:
                self._mourn(worker, child, now)
                changed = True
            if worker.due is not None and now >= worker.due:
                self._revive(worker)
                changed = True
            elif worker.child is not None and not worker.addresses:
                changed |= worker.read_addresses()
        return changed

    def stop(self, seconds: float, *, hurried: Callable[[], bool]) -> None:
        """Ask every process to end, and end those that have not after ``seconds`` or when there is no time to wait."""
        running = [worker.child for worker in self.workers if worker.child is not None]
        for child in running:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while any(child.exit_code is None for child in running) and time.monotonic() < deadline and not hurried():
            time.sleep(_STOP_POLL_SECONDS)
        for worker in self.workers:
            if worker.child is not None and worker.child.exit_code is None and not hurried():
                self._tell(f"{worker.name} did not stop within {seconds:g} s and was ended")
            if worker.child is not None:
                worker.child.kill()
            worker.child = worker.due = None

    def _launch(self, worker: Worker) -> None:
        worker.address_file.unlink(missing_ok=True)
        worker.addresses = {}
        environment = {**self._environments[worker.service], "POSTHOUSE_ADDRESS_FILE": str(worker.address_file)}
        command = Command(
            [sys.executable, "-m", self._modules[worker.service]],
            log=self._logs / f"{worker.name.replace('/', '-')}.log",
            environment=environment,
            held=self._held,
        )
        worker.child, worker.due, worker.started = Child(command), None, time.monotonic()

    def _mourn(self, worker: Worker, child: Child, now: float) -> None:
        worker.failures = 1 if now - worker.started >= _HEALTHY_SECONDS else worker.failures + 1
        pause = pause_after(worker.failures)
        worker.child, worker.due, worker.addresses = None, now + pause, {}
        self._tell(
            f"{worker.name} (process {child.pid}) {child.describe_end()}; it is started again in {pause:g} s (log: {child.log})"
        )

    def _revive(self, worker: Worker) -> None:
        try:
            self._launch(worker)
        except OSError as error:  # no memory, no process ids: as with any other end, later again
            worker.failures += 1
            worker.due = time.monotonic() + pause_after(worker.failures)
            self._tell(f"{worker.name} cannot be started: {error.strerror or error}")
            return
        if worker.child is not None:
            self._tell(f"{worker.name} runs again (process {worker.child.pid})")


def _ready(address: str | None) -> bool:
    if address is None:
        return False
    # An opener of its own: the default one would ask a proxy from the environment for a loopback address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/readyz", timeout=_PROBE_SECONDS) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def _told(line: str) -> str:
    """Return what a log line says to a person: the line itself where it is no JSON."""
    try:
        content = json.loads(line)
    except ValueError:
        return line.removeprefix("posthouse: ")
    if not isinstance(content, dict):
        return line
    return " ".join(str(content[name]) for name in ("event", "detail", "exception") if name in content)[-500:]
