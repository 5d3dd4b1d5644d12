"""Child processes in sessions of their own that die with us, whatever ends us.

A session of its own keeps a terminal's Ctrl-C and a group's SIGTERM away from the child: it is stopped in our order. That it
dies with us, also after SIGKILL, is Linux's parent-death signal, set by ``setpriv``; elsewhere a small guard process
watches a pipe that closes when we are gone (:mod:`posthouse.embedded.guard`).
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOG_BYTES = 10 * 1024 * 1024
"""A log larger than this is set aside when its child starts."""

_POLL_SECONDS = 0.02
_WRAPPER_SECONDS, _WRAPPER_POLL_SECONDS = 5.0, 0.001
_TAIL_BYTES = 8192

Tell = Callable[[str], None]
"""Receives one line for a person."""


class Interrupted(Exception):
    """The wait was given up because a stop was asked for."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to start.

    Attributes:
        arguments: the program and its arguments; the program as a full path.
        log: file that standard output and standard error are appended to.
        environment: the whole environment of the child.
        death_signal: what the child gets when we die.
        held: file descriptors of ours that it keeps open, e.g. of a lock.
        folder: working directory; ours where it is None.
    """

    arguments: Sequence[str | Path]
    log: Path
    environment: Mapping[str, str]
    death_signal: signal.Signals = signal.SIGTERM
    held: tuple[int, ...] = ()
    folder: Path | None = None


class Child:
    """A running child process; its ``pid`` is the program's own, no wrapper stays in between."""

    def __init__(self, command: Command, *, setpriv: str | None = shutil.which("setpriv")) -> None:
        """Start it.

        Args:
            command: what to start.
            setpriv: full path of util-linux's ``setpriv``; without it, or elsewhere than on Linux, a guard process is used.

        Raises:
            OSError: the program cannot be started.
            RuntimeError: called from another thread; Linux sends the death signal when the *thread* ends (prctl(2)).
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start children from the main thread: they die with the thread that started them")
        arguments = [str(argument) for argument in command.arguments]
        by_kernel = setpriv is not None and sys.platform == "linux"
        if by_kernel:
            arguments = [str(setpriv), "--pdeathsig", command.death_signal.name.removeprefix("SIG"), "--", *arguments]
        _set_aside(command.log)
        with command.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program is ours or one named by full path
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(command.environment),
                cwd=command.folder,
                start_new_session=True,
                pass_fds=command.held,
            )
        if by_kernel:
            _wait_until_replaced(self._process, Path(str(setpriv)))
        self._guard = None if by_kernel else _start_guard(self._process.pid, command.death_signal)
        self.log = command.log
        self.ended_by_us = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative signal number where one ended it."""
        code = self._process.poll()
        if code is not None:
            self._dismiss_guard()
        return code

    def describe_end(self) -> str:
        """Return how it ended, in words."""
        code = self.exit_code
        if code is None:
            return "is still running"
        if code < 0:
            with contextlib.suppress(ValueError):  # a signal that this Python has no name for
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def last_words(self) -> str:
        """Return the last line of its log, empty where there is none."""
        lines = tail(self.log).splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it alone; one that has ended already gets none."""
        self.ended_by_us = True
        self._process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; return whether it has."""
        try:
            self._process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return False
        self._dismiss_guard()
        return True

    def kill(self) -> None:
        """End it and everything in its session at once."""
        self.ended_by_us = True
        # Not reaped yet, so the id is still its own; a session is led by its first process (setsid(2)).
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._dismiss_guard()

    def stop(self, *signals: tuple[signal.Signals, float]) -> None:
        """Send each signal and give it its seconds; kill what is left."""
        for number, seconds in signals:
            self.send(number)
            if self.wait(seconds):
                return
        self.kill()

    def _dismiss_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                self._guard.stdin.write(b"dismissed\n")
                self._guard.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait()
            self._guard = None


def _wait_until_replaced(process: subprocess.Popen[bytes], wrapper: Path) -> None:
    """Return once ``wrapper`` has become the program it starts: from then on the kernel ends the child with us."""
    program, wrapper = Path(f"/proc/{process.pid}/exe"), wrapper.resolve()
    deadline = time.monotonic() + _WRAPPER_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if program.resolve(strict=True) != wrapper:
                return
        except OSError:  # it ends right now, or /proc may not be read here
            return
        time.sleep(_WRAPPER_POLL_SECONDS)


def _start_guard(pid: int, number: signal.Signals) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("guard.py")
    # -I and -S: it needs nothing but the standard library, and starts in 15 ms.
    return subprocess.Popen(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-I", "-S", str(script), str(pid), str(int(number))],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _set_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))


def tail(log: Path) -> str:
    """Return the end of a log file, empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def wait_for(condition: Callable[[], bool], *, seconds: float, stopped: Callable[[], bool]) -> bool:
    """Wait until a condition holds; return whether it does.

    Raises:
        Interrupted: ``stopped`` said so first.
    """
    deadline = time.monotonic() + seconds
    while True:
        if condition():
            return True
        if stopped():
            raise Interrupted
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)


def never() -> bool:
    """Say that nobody asked to stop."""
    return False


def without_libpq(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the ``PG...`` names that Postgres clients read: PGPORT would send them elsewhere."""
    return {name: value for name, value in environment.items() if not name.startswith("PG")}
