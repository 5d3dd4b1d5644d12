"""``make demo``: the whole journey, as anybody would run it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.waiting import eventually_sync

SECONDS = 120
STORY = [
    *("ready", "accepted", "delivered", "webhook", "bounced", "webhook", "accepted", "failed", "webhook"),
    *("accepted", "suppressed", "webhook", "done"),
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No terminal, no colour, a place of its own, and a shell that happens to know another stack."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    (tmp_path / "t").mkdir()
    return {**kept, "TMPDIR": str(tmp_path / "t"), "NO_COLOR": "1", "POSTHOUSE_LOCAL_HTTP_PORT": "1"}


@pytest.fixture
def demo(environment: dict[str, str], tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    with (tmp_path / "output").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "posthouse", "demo"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        yield process
        if process.poll() is None:
            process.kill()
        process.wait()


def left_behind(folder: Path) -> list[str]:
    """Return the command lines of processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_every_step_of_the_journey_is_seen_and_told_in_order(demo: "subprocess.Popen[str]", tmp_path: Path) -> None:
    code = demo.wait(SECONDS)
    told = (tmp_path / "output").read_text()
    assert code == 0, told
    assert "\x1b" not in told
    words = re.findall(r"^ +\d+\.\d\d s  (\w+)", told, re.MULTILINE)
    position = 0
    for word in STORY:
        assert word in words[position:], told
        position = words.index(word, position) + 1
    for kind in ("delivered", "bounced", "failed", "suppressed"):
        assert re.search(rf"webhook +{kind}, .*signature verified", told), told
        assert f'"type": "{kind}"' in told
    assert "ed25519-sha256 by posthouse.test; rsa-sha256 by posthouse.test" in " ".join(told.split())
    assert "no new SMTP connection" in told
    assert [*(tmp_path / "t").iterdir()] == []
    assert left_behind(tmp_path / "t") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_stopped_it_takes_everything_along(
    demo: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "t"
    eventually_sync(lambda: [*folder.glob("*/data/postgres")], 60, what="its Postgres is being made")
    demo.send_signal(number)
    assert demo.wait(SECONDS) == 130, (tmp_path / "output").read_text()
    assert [*folder.iterdir()] == []
    assert left_behind(folder) == []


def test_a_step_that_is_not_seen_ends_it_with_the_whereabouts_of_the_logs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    # A Python that cannot load one service is what a broken installation looks like to the stack.
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "hooks.py").write_text("raise SystemExit('this service is broken')\n")
    done = subprocess.run(
        [sys.executable, "-m", "posthouse", "demo"],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(folder)},
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "missing" in done.stdout
    assert "Traceback" not in done.stderr
    logs = re.search(r"^Logs of the services: (.+)$", done.stdout, re.MULTILINE)
    assert logs is not None
    assert "this service is broken" in (Path(logs[1]) / "hooks.log").read_text()
    assert left_behind(tmp_path / "t") == []
