"""The certificate of the local stack."""

import ssl
import stat
from pathlib import Path

from posthouse.embedded.certificate import key_pair


def test_it_is_made_once_and_found_again(tmp_path: Path) -> None:
    pair = key_pair(tmp_path / "tls", "127.0.0.1")
    made = pair.certificate.read_bytes()
    assert key_pair(tmp_path / "tls", "127.0.0.1") == pair
    assert pair.certificate.read_bytes() == made
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(pair.certificate, pair.key)


def test_another_address_gets_another_one(tmp_path: Path) -> None:
    made = key_pair(tmp_path / "tls", "127.0.0.1").certificate.read_bytes()
    assert key_pair(tmp_path / "tls", "192.0.2.1").certificate.read_bytes() != made


def test_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    pair = key_pair(tmp_path / "tls", "::1")
    for file in (pair.certificate, pair.key):
        file.write_text("-----BEGIN")
        pair = key_pair(tmp_path / "tls", "::1")
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(pair.certificate, pair.key)
