"""From a fresh checkout: the make targets, how the environment is made, and an ordinary user running it all."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fakes.waiting import eventually_sync

CHECKOUT = Path(__file__).parents[2]
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
NOBODY = 65534


def python3() -> str:
    """A Python outside of any environment that has venv and pip, for an ordinary user."""
    for folder in SYSTEM_PATH.split(":"):
        candidate = Path(folder) / "python3"
        check = "import sys, venv, pip; sys.exit(sys.version_info < (3, 11))"
        if (
            candidate.exists()
            and subprocess.run([candidate, "-c", check], capture_output=True, check=False).returncode == 0
        ):
            return str(candidate)
    pytest.skip("the system has no Python 3.11 with venv and pip")


def copy_checkout(target: Path) -> None:
    listing = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this tree is no git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy of the tree, without an environment, that an ordinary user owns."""
    folder = Path(tempfile.mkdtemp(prefix="posthouse-checkout-"))
    folder.chmod(0o755)
    try:
        copy_checkout(folder / "tree")
        if os.geteuid() == 0:
            for path in [folder / "tree", *(folder / "tree").rglob("*")]:
                os.chown(path, NOBODY, NOBODY)
        yield folder / "tree"
    finally:
        shutil.rmtree(folder)


def as_ordinary_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv to become an ordinary user with")
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]


def test_an_ordinary_user_without_a_home_runs_it_from_a_fresh_checkout(checkout: Path) -> None:
    python3()
    environment = {"PATH": SYSTEM_PATH, "HOME": "/nonexistent"}
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        if name in os.environ:
            environment[name] = os.environ[name]
    command = [
        *as_ordinary_user(),
        "make",
        "run",
        "ARGS=--http-port 0 --smtp-port 0 --submission-port 0 --submissions-port 0",
    ]
    log = checkout.parent / "output"
    with log.open("wb") as output:
        make = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:

        def ready() -> bool:
            if make.poll() is not None:
                raise RuntimeError(f"make run ended:\n{log.read_text()}")
            return "Stop with Ctrl-C." in log.read_text()

        eventually_sync(ready, timeout=240)
        info = json.loads((checkout / ".posthouse" / "local.json").read_text())
        mail = {"from": info["login"], "to": ["you@example.org"], "subject": "Hello", "text": "Hi."}
        answer = httpx.post(info["http_url"] + "/v1/messages", json=mail, auth=(info["login"], info["password"]))
        assert answer.status_code == 202, answer.text
        if os.geteuid() == 0:
            assert Path(f"/proc/{info['pids']['api'][0]}").stat().st_uid == NOBODY
        os.killpg(make.pid, signal.SIGTERM)  # as a terminal or a supervisor ends a job: everybody in the group hears it
        make.wait(20)
        eventually_sync(lambda: "stopped" in log.read_text())
        assert not (checkout / ".posthouse" / "local.json").exists()
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.wait()
    made = {path.name for path in checkout.iterdir()} - {path.name for path in CHECKOUT.iterdir()}
    assert made <= {".posthouse", ".uv", ".venv"}
    assert not Path(pwd.getpwuid(NOBODY).pw_dir, ".cache", "uv").exists()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout with nothing but the script that makes environments."""
    (tmp_path / ".ci").mkdir()
    shutil.copy2(CHECKOUT / ".ci" / "environment", tmp_path / ".ci" / "environment")
    return tmp_path


def tools(folder: Path, **scripts: str) -> str:
    """A PATH with the tools every system has, and these scripts."""
    folder.mkdir()
    for name in ("sh", "dirname", "cat", "mkdir", "grep", "env", "true", "uname", "cksum", "tr", "xargs", "rm"):
        (folder / name).symlink_to(shutil.which(name, path=SYSTEM_PATH) or "")
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def environment_with(path: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}, "PATH": path}


def test_uv_is_got_into_the_checkout_where_it_is_missing(bare: Path) -> None:
    path = tools(bare / "bin", python3=f'exec {python3()} "$@"')
    command = [bare / ".ci" / "environment", "uv", "sh", "-c", "echo $UV"]
    done = subprocess.run(command, env=environment_with(path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(bare.resolve() / ".uv" / "bin" / "uv")


def test_uv_is_got_without_ensurepip_too(bare: Path) -> None:
    # As on Debian without python3-venv: the folder is half made, then venv fails.
    broken = (
        'case "$*" in\n'
        '    "-m venv .uv") mkdir -p .uv/bin; echo "ensurepip is not available" >&2; exit 1 ;;\n'
        f'esac\nexec {python3()} "$@"'
    )
    path = tools(bare / "bin", python3=broken)
    command = [bare / ".ci" / "environment", "uv", "sh", "-c", "$UV --version"]
    done = subprocess.run(command, env=environment_with(path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("uv ")


@pytest.mark.parametrize(
    ("scripts", "words"),
    [({}, "Python 3.11 or newer is needed"), ({"python3": "exit 1"}, "uv could not be installed")],
)
def test_a_machine_without_python_or_pip_is_told_what_to_install(
    bare: Path, scripts: dict[str, str], words: str
) -> None:
    path = tools(bare / "bin", **scripts)
    done = subprocess.run(
        [bare / ".ci" / "environment", "uv"], env=environment_with(path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "install" in done.stderr.splitlines()[-1]


def test_make_lists_its_targets() -> None:
    done = subprocess.run(
        ["make", "-C", str(CHECKOUT), "--no-print-directory"], capture_output=True, text=True, check=True
    )
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert listed == {"help", "sync", "run", "demo", "test", "check", "bench", "lock"}


def test_make_run_is_replaced_by_the_stack() -> None:
    done = subprocess.run(["make", "-C", str(CHECKOUT), "-n", "run"], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if "posthouse" in line and not line.startswith("make")]
    assert line.startswith("exec ")


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), (None, 2)])
def test_the_continuous_integration_entry_ends_as_the_tests_do(tmp_path: Path, script: str | None, code: int) -> None:
    path = tools(tmp_path / "bin", **({} if script is None else {"make": script}))
    run = ["sh", "-c", f"{shutil.which('bash')} {CHECKOUT / '.ci' / 'run'}"]
    done = subprocess.run(run, env=environment_with(path), capture_output=True, text=True, check=False)
    assert done.returncode in {code, -(code - 128)}
    if script is None:
        assert "make is needed" in done.stderr
