"""``posthouse local``: the order in which a stack is started, watched and stopped."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from posthouse import services
from posthouse.embedded.certificate import KeyPair, key_pair
from posthouse.embedded.lock import FolderLock
from posthouse.embedded.nats import EmbeddedNats
from posthouse.embedded.postgres import SECOND_SIGNAL_SECONDS, EmbeddedPostgres
from posthouse.embedded.process import Interrupted
from posthouse.migrate import say, wait_for_postgres
from posthouse.seed import Webhook, seed
from posthouse.services import Surroundings
from posthouse.settings import PASSWORD, LocalSettings, Plan, ignored_variables, plan, ports
from posthouse.signals import Signals
from posthouse.state import DataFolder, Kept
from posthouse.summary import Running, document, page, reachable
from posthouse.supervisor import Supervisor, pause_after
from shared.db.demo import Demo, DemoSecrets
from shared.db.engine import CONNECTION_LOST
from shared.db.migrate import upgrade
from shared.errors import ConfigurationError

_LOOK_SECONDS = 0.1
_DATABASE_SECONDS = 60.0
# A stop takes at most 8 s: the services drain, then NATS and Postgres have what is left, with something for its second signal.
_STOP_SECONDS = 7.2
_SERVICE_SECONDS = services.GRACE_SECONDS + 0.5
_NATS_SECONDS = 0.3


def run_local(settings: LocalSettings) -> None:
    """Run a stack until a signal asks to stop; returns after an orderly stop, also one asked for during the start.

    Raises:
        ConfigurationError: something given, or something on this machine, keeps it from running; says what to do.
    """
    for name in ignored_variables(os.environ):
        say(f"warning: {name} is set and ignored: posthouse local reads only POSTHOUSE_LOCAL_... and its options")
    signals = Signals()
    signals.install()
    stack = Stack(plan(settings), signals)
    try:
        with contextlib.suppress(Interrupted):
            stack.start()
            stack.watch()
    finally:
        stack.stop()


@dataclass(frozen=True, slots=True)
class Bound:
    """Where the services listen, as ``host:port``."""

    http: str
    smtp: str
    submission: str
    submissions: str


class Stack:
    """One stack on one data folder."""

    def __init__(self, checked: Plan, signals: Signals) -> None:
        """Take what to run, and whom to ask whether to stop."""
        self._plan, self._signals = checked, signals
        self._data = DataFolder(checked.data_dir)
        self._lock = FolderLock(checked.data_dir, what="a stack of Posthouse")
        self._postgres = EmbeddedPostgres(checked.data_dir / "postgres", tell=say)
        self._nats = EmbeddedNats(checked.data_dir / "nats")
        self._servers = {
            name: Revived(name, server)
            for name, server, given in (
                ("Postgres", self._postgres, checked.settings.database_url),
                ("NATS", self._nats, checked.settings.nats_url),
            )
            if given is None
        }
        self._supervisor: Supervisor | None = None
        self._running: Running | None = None

    def start(self) -> None:
        """Start everything and return when it is ready.

        Raises:
            ConfigurationError: it cannot run; says why.
            Interrupted: a stop was asked for.
        """
        self._data.prepare()
        self._lock.take(stopped=self._signals.stop_asked)
        self._data.withdraw()
        kept = self._data.secrets()
        self._check_ports()
        say(f"starting on {self._plan.data_dir}")
        for revived in self._servers.values():
            revived.server.start(stopped=self._signals.stop_asked)
        demo = self._prepare_database(kept)
        surroundings = Surroundings(self._database_url, self._nats_url, kept.secret_key)
        bound = self._start_services(surroundings, key_pair(self._plan.data_dir / "tls", self._plan.reachable_host))
        self._running = Running(
            plan=self._plan,
            demo=demo,
            http=reachable(self._plan, bound.http),
            smtp=reachable(self._plan, bound.smtp),
            submission=reachable(self._plan, bound.submission),
            submissions=reachable(self._plan, bound.submissions),
            database_url=self._database_url,
            nats_url=self._nats_url,
            webhook_secret=kept.webhook_secret,
        )
        self._announce()
        say(page(self._running, self._data.announcement, self._data.logs))

    def watch(self) -> None:
        """Keep everything running until a stop is asked for."""
        supervisor = self._supervisor
        while supervisor is not None and not self._signals.stop_asked():
            for revived in self._servers.values():
                revived.tend(self._signals.stop_asked)
            if supervisor.tend():
                self._announce()
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """Stop everything that was started, the services first; never raises for what is not there."""
        deadline, hurried = time.monotonic() + _STOP_SECONDS, self._signals.hurry_asked
        if self._running is not None:
            say("stopping")
        if self._supervisor is not None:
            self._supervisor.stop(_SERVICE_SECONDS, hurried=hurried)
        self._nats.stop(0 if hurried() else _NATS_SECONDS)
        left = deadline - time.monotonic() - SECOND_SIGNAL_SECONDS
        self._postgres.stop(0 if hurried() else left)
        if self._lock.held:
            self._data.withdraw()
        self._lock.release()
        if self._running is not None:
            say("stopped")

    @property
    def _database_url(self) -> str:
        return self._plan.settings.database_url or self._postgres.url

    @property
    def _nats_url(self) -> str:
        return self._plan.settings.nats_url or self._nats.url

    def _check_ports(self) -> None:
        """Find out before anything starts that a port cannot be had, so that one line can name its option."""
        for option, port in ports(self._plan.settings):
            check_port(self._plan.host, port, option)

    def _prepare_database(self, kept: Kept) -> Demo:
        settings = self._plan.settings
        webhook = None
        if settings.outgoing_webhook is not None:
            webhook = Webhook(settings.outgoing_webhook, kept.webhook_secret, settings.webhook_authorization)
        password = PASSWORD if self._plan.loopback else kept.password
        wanted = DemoSecrets(password=password, account_key=kept.account_key, admin_key=kept.admin_key)
        url = self._database_url

        async def work() -> Demo:
            await wait_for_postgres(url, seconds=_DATABASE_SECONDS, name="--database-url", tell=say)
            await upgrade(url)
            return await seed(url, kept.secret_key, wanted, webhook)

        try:
            demo = self._signals.run(work())
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            raise ConfigurationError(f"the database could not be prepared: {type(error).__name__}: {error}") from None
        self._data.keep(kept.with_keys(demo.account_key, demo.admin_key))
        return demo

    def _start_services(self, surroundings: Surroundings, tls: KeyPair) -> Bound:
        """Start the four services; return where they listen once all are ready."""
        supervisor = self._supervisor = Supervisor(
            logs=self._data.logs,
            run=self._data.run,
            held=self._lock.held,
            tell=say,
            stopped=self._signals.stop_asked,
        )
        base = services.common(self._plan, surroundings)
        workers = self._plan.workers
        supervisor.start("dsn-ingest", services.MODULES["dsn-ingest"], services.dsn_ingest(self._plan, base), 1)
        smtp = self._bound(supervisor.wait_for_addresses("dsn-ingest"), "smtp", "dsn-ingest")
        # From now on every process of the service gets the port that the first one has: restarts, and those that share it.
        supervisor.pin("dsn-ingest", POSTHOUSE_DSN_INGEST_PORT=smtp.rpartition(":")[2])
        supervisor.add("dsn-ingest", workers["dsn-ingest"])
        relay = self._plan.relay or reachable(self._plan, smtp)
        supervisor.start("api", services.MODULES["api"], services.api(self._plan, base, relay, tls), 1)
        supervisor.start("delivery", services.MODULES["delivery"], services.delivery(base, relay), workers["delivery"])
        supervisor.start("hooks", services.MODULES["hooks"], services.hooks(base), workers["hooks"])
        of_api = supervisor.wait_for_addresses("api")
        http, submission, submissions = (
            self._bound(of_api, name, "api") for name in ("http", "submission", "submissions")
        )
        supervisor.pin(
            "api",
            POSTHOUSE_API_PORT=http.rpartition(":")[2],
            POSTHOUSE_SUBMISSION_PORT=submission.rpartition(":")[2],
            POSTHOUSE_SUBMISSIONS_PORT=submissions.rpartition(":")[2],
        )
        supervisor.add("api", workers["api"])
        for service in workers:
            supervisor.wait_for_addresses(service)
        supervisor.wait_until_ready()
        return Bound(http, smtp, submission, submissions)

    def _bound(self, addresses: dict[str, str], name: str, service: str) -> str:
        if name not in addresses:
            raise ConfigurationError(
                f"{service} did not say where it listens for {name}: its version does not fit this command's"
            )
        return addresses[name]

    def _announce(self) -> None:
        if self._running is not None and self._supervisor is not None:
            self._data.announce(document(self._running, self._supervisor.workers))


class Revived:
    """An embedded server that is started again when it has ended."""

    def __init__(self, name: str, server: EmbeddedPostgres | EmbeddedNats) -> None:
        """Take the server and its name for people."""
        self._name, self.server = name, server
        self._failures = 0
        self._due: float | None = None
        self._started = 0.0

    def tend(self, stopped: Callable[[], bool]) -> None:
        """Look after it once.

        Raises:
            Interrupted: a stop was asked for while it started.
        """
        now, child = time.monotonic(), self.server.child
        if self._due is None:
            if child is None or child.exit_code is None:
                return
            self._failures = 1 if now - self._started > 60 else self._failures + 1
            self._due = now + pause_after(self._failures)
            say(f"{self._name} (process {child.pid}) {child.describe_end()}; it is started again (log: {child.log})")
        if now < self._due:
            return
        try:
            self.server.start(stopped=stopped)
        except (ConfigurationError, OSError) as error:
            self._failures += 1
            self._due = time.monotonic() + pause_after(self._failures)
            say(f"{self._name} cannot be started again yet: {error}")
            return
        self._due, self._started = None, time.monotonic()
        say(f"{self._name} runs again")


def check_port(host: str, port: int, option: str) -> None:
    """Bind a port for a moment; nothing for port 0.

    Raises:
        ConfigurationError: names address, option and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the services bind: connections of an earlier run in TIME_WAIT do not count, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            place = services.joined(host, port)
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"{place} is in use by another program: stop it, or choose another port with {option} (0 takes a free one)"
                ) from None
            if error.errno == errno.EACCES:
                raise ConfigurationError(
                    f"{place} may not be used by this user: choose a port above 1023 with {option}"
                ) from None
            raise ConfigurationError(
                f"cannot listen on {place}: {error.strerror}; choose another address with --bind"
            ) from None
