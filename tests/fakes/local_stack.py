"""A whole ``posthouse local``, driven from outside by its documented names: options, ``local.json``, signals, output."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from fakes.waiting import eventually_sync

START_SECONDS = 120
PORT_OPTIONS = ("--http-port", "--smtp-port", "--submission-port", "--submissions-port")


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without anything of Posthouse's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    return {**inherited, **more}


def run_posthouse(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a ``posthouse`` command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "posthouse", *arguments],
        env=dict(environment if environment is not None else clean_environment()),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


class LocalStack:
    """One stack on one data folder, started and stopped at will; on free ports where no option says otherwise.

    Use as a context manager: it is stopped at the end.
    """

    def __init__(self, folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.options = options
        self.environment = dict(environment if environment is not None else clean_environment())
        self.process: subprocess.Popen[bytes] | None = None
        self._output = folder.with_name(folder.name + ".output")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def launch(self) -> Self:
        """Start the process and return at once."""
        ports = [word for name in PORT_OPTIONS if name not in self.options for word in (name, "0")]
        command = [sys.executable, "-m", "posthouse", "local", "--data-dir", str(self.folder), *ports, *self.options]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def start(self) -> Self:
        """Start and wait until it says that it is ready."""
        self.launch()
        eventually_sync(self._ready, timeout=START_SECONDS, what="posthouse local being ready")
        return self

    def _ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"posthouse local ended:\n{self.output}")
        return "Stop with Ctrl-C." in self.output

    @property
    def output(self) -> str:
        """Everything it has printed since the last start."""
        return self._output.read_text(errors="replace")

    @property
    def info(self) -> dict[str, Any]:
        """The content of ``local.json`` now."""
        content: dict[str, Any] = json.loads((self.folder / "local.json").read_text())
        return content

    @property
    def pids(self) -> list[int]:
        """The process ids of all services."""
        return [pid for pids in self.info["pids"].values() for pid in pids]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the stack's own process."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 8) -> int:
        """Wait until it has ended and return its exit code; 8 s is what a stop may take."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, wait, return its exit code."""
        self.send(number)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it by SIGKILL; its children have to notice by themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def gone(pid: int) -> bool:
    """Whether no process has this id, or only one that nobody has reaped yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return Path("/proc/self").exists()
