"""The embedded NATS: on loopback only, with a token, found again after a restart."""

import os
import signal
import stat
from pathlib import Path

import nats
import pytest

from fakes.waiting import eventually, eventually_sync
from posthouse.embedded.nats import EmbeddedNats
from shared.errors import ConfigurationError


async def test_clients_come_back_after_a_restart(private_nats: EmbeddedNats) -> None:
    before, heard = private_nats.url, []
    client = await nats.connect(before, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
    try:
        await client.subscribe("bell", cb=_appender(heard))
        private_nats.stop()
        await eventually(lambda: not client.is_connected)
        private_nats.start()
        assert private_nats.url == before
        await eventually(lambda: client.is_connected)

        async def rung() -> bool:
            await client.publish("bell", b"ring")
            await client.flush()
            return bool(heard)

        await eventually(rung)
    finally:
        await client.close()


def _appender(heard: list[bytes]):  # type: ignore[no-untyped-def]  # noqa: ANN202 - nats-py has no types
    async def hear(message) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - as above
        heard.append(message.data)

    return hear


def test_a_killed_server_is_started_again_on_its_port(private_nats: EmbeddedNats) -> None:
    before, child = private_nats.url, private_nats.child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    assert eventually_sync(lambda: child.exit_code is not None)
    private_nats.start()
    assert private_nats.url == before


def test_the_token_is_readable_by_its_user_only(private_nats: EmbeddedNats, tmp_path: Path) -> None:
    config = tmp_path / "nats" / "nats.conf"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert private_nats.url.startswith("nats://")
    assert private_nats.url.rpartition("@")[2].startswith("127.0.0.1:")


def test_nothing_is_stored(private_nats: EmbeddedNats, tmp_path: Path) -> None:
    assert "JetStream" not in private_nats.log.read_text()
    assert not [path for path in (tmp_path / "nats").rglob("*") if path.is_dir()]


def test_a_second_server_on_the_folder_is_refused(private_nats: EmbeddedNats, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"runs on .* already"):
        EmbeddedNats(tmp_path / "nats").start()
    assert private_nats.child is not None
    assert private_nats.child.exit_code is None
