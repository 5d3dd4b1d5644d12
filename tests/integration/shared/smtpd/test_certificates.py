"""A renewed certificate is presented without a restart, and a broken renewal changes nothing."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from shared.errors import ConfigurationError
from shared.smtpd.certificates import Certificate, certificate


def _issue(authority: trustme.CA, folder: Path, name: str) -> bytes:
    issued = authority.issue_cert(name)
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())


async def _presented(context: ssl.SSLContext) -> bytes:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        client = ssl.create_default_context()
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client)
        found = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        await writer.wait_closed()
    assert isinstance(found, bytes)
    return found


async def test_a_renewed_certificate_is_presented_and_a_broken_one_is_not(tmp_path: Path) -> None:
    authority = trustme.CA()
    first = _issue(authority, tmp_path, "mx.test")
    kept = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert await _presented(kept.context) == first
    assert not kept.refresh()
    second = _issue(authority, tmp_path, "mx.test")
    assert kept.refresh()
    assert await _presented(kept.context) == second != first
    (tmp_path / "cert.pem").write_text("half written")
    assert not kept.refresh()
    assert await _presented(kept.context) == second


async def test_the_watch_sees_a_renewal(tmp_path: Path) -> None:
    authority = trustme.CA()
    _issue(authority, tmp_path, "mx.test")
    kept = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    stop = asyncio.Event()
    watching = asyncio.create_task(kept.watch(stop, seconds=0.01))
    second = _issue(authority, tmp_path, "mx.test")
    async with asyncio.timeout(10):
        while await _presented(kept.context) != second:  # noqa: ASYNC110 - each turn is a handshake
            await asyncio.sleep(0.01)
    stop.set()
    await watching


def test_settings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    assert certificate(None, None) is None
    with pytest.raises(ConfigurationError, match="both or neither"):
        certificate(tmp_path / "cert.pem", None)
    with pytest.raises(ConfigurationError, match="POSTHOUSE_TLS_CERT_FILE"):
        certificate(tmp_path / "missing.pem", tmp_path / "key.pem")
