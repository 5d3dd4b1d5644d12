"""Children die with us whatever ends us, and a folder is free as soon as the last of them is gone."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.waiting import eventually_sync
from posthouse.embedded.lock import FolderLock
from posthouse.embedded.nats import EmbeddedNats
from posthouse.embedded.postgres import EmbeddedPostgres, PostgresOptions
from posthouse.embedded.process import Child, Command, Interrupted
from shared.errors import ConfigurationError


def gone(pid: int) -> bool:
    """Whether no process has this id, or only one that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path("/proc").exists() and not Path(f"/proc/{pid}").exists()


@contextmanager
def parent(script: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that starts children, prints their ids and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pids: list[int] = []
    try:
        pids = [int(word) for word in process.stdout.readline().split()]
        yield process, pids
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        for pid in pids:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


SERVERS = """
import sys
from pathlib import Path
from posthouse.embedded.nats import EmbeddedNats
from posthouse.embedded.postgres import EmbeddedPostgres, PostgresOptions
postgres = EmbeddedPostgres(Path(sys.argv[1]) / "pg", PostgresOptions(major=int(sys.argv[2]), synced=False))
nats = EmbeddedNats(Path(sys.argv[1]) / "nats")
postgres.start(); nats.start()
print(postgres.child.pid, nats.child.pid, flush=True)
sys.stdin.read()
"""


def test_a_killed_parent_leaves_no_server_and_a_folder_that_starts_again(
    tmp_path: Path, postgres_options: PostgresOptions
) -> None:
    with parent(SERVERS, tmp_path, postgres_options.major) as (process, pids):
        assert len(pids) == 2
        process.kill()
        process.wait()
        # At once, while the orphans are still on their way out: the start waits for them.
        postgres = EmbeddedPostgres(tmp_path / "pg", postgres_options)
        nats = EmbeddedNats(tmp_path / "nats")
        try:
            postgres.start()
            nats.start()
            assert all(gone(pid) for pid in pids)
            assert postgres.run_sql("SELECT 1") == "1"
        finally:
            nats.stop()
            postgres.stop()


CHILD = """
import sys
from pathlib import Path
from posthouse.embedded.process import Child, Command
import os
child = Child(Command([sys.executable, "-c", "import time; time.sleep(60)"], Path(sys.argv[1]), os.environ), {how})
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["", "setpriv=None"], ids=["by the kernel", "by a guard process"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(tmp_path: Path, how: str, end: signal.Signals) -> None:
    with parent(CHILD.format(how=how), tmp_path / "log") as (process, (pid,)):
        assert not gone(pid)
        process.send_signal(end)
        process.wait()
        assert eventually_sync(lambda: gone(pid))


def test_the_guard_goes_when_its_child_has_ended(tmp_path: Path) -> None:
    child = Child(Command([sys.executable, "-c", "pass"], tmp_path / "log", os.environ), setpriv=None)
    guard = child._guard
    assert guard is not None
    assert child.wait(20)
    assert guard.poll() == 0


def test_a_child_is_in_a_session_of_its_own_and_ends_with_all_of_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(inner.pid, flush=True); time.sleep(60)"
    )
    child = Child(Command([sys.executable, "-c", script], tmp_path / "log", os.environ))
    assert os.getsid(child.pid) == child.pid
    inner = int(eventually_sync(child.last_words))
    child.kill()
    assert child.describe_end() == "was ended by SIGKILL"
    assert eventually_sync(lambda: gone(inner))


def test_stopping_goes_on_to_the_next_signal(tmp_path: Path) -> None:
    script = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True); time.sleep(60)"
    )
    child = Child(Command([sys.executable, "-c", script], tmp_path / "log", os.environ))
    eventually_sync(lambda: child.last_words() == "ready")
    child.stop((signal.SIGTERM, 0.1), (signal.SIGINT, 10))
    assert child.exit_code is not None
    assert child.describe_end() != "was ended by SIGKILL"


def test_a_large_log_is_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (11 * 1024 * 1024))
    child = Child(Command([sys.executable, "-c", "print('fresh')"], log, os.environ))
    assert child.wait(20)
    assert log.read_text() == "fresh\n"
    assert (tmp_path / "log.1").stat().st_size == 11 * 1024 * 1024


def test_children_are_started_from_the_main_thread_only(tmp_path: Path) -> None:
    caught: list[RuntimeError] = []

    def start() -> None:
        try:
            Child(Command(["/bin/true"], tmp_path / "log", os.environ))
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_a_folder_stays_held_until_the_last_child_has_ended(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path, what="a stack"), FolderLock(tmp_path, what="a stack")
    first.take()
    child = Child(
        Command([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", os.environ, held=first.held)
    )
    try:
        first.release()
        with pytest.raises(ConfigurationError, match=r"processes of the last run .* end them"):
            second.take(seconds=0.1)
        with pytest.raises(Interrupted):
            second.take(stopped=lambda: True)
        assert second.held == ()
    finally:
        child.kill()
    second.take()
    assert second.held
    second.release()
