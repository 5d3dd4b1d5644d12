"""A certificate of the local stack's own, so that SMTP submission can offer TLS: nobody vouches for it."""

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID = timedelta(days=825)
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """PEM files of a certificate and of its private key."""

    certificate: Path
    key: Path


def key_pair(folder: Path, host: str) -> KeyPair:
    """Return the certificate kept in a folder; a new one where there is none, it is about to expire or is for another host.

    Args:
        folder: made with mode 0700 where it is missing.
        host: the IP address under which the stack is reached, beside localhost.
    """
    pair = KeyPair(folder / "certificate.pem", folder / "key.pem")
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _serves(pair, host):
        _make(pair, host)
    return pair


def _names(host: str) -> list[x509.GeneralName]:
    addresses = dict.fromkeys(["127.0.0.1", "::1", host])
    return [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]


def _serves(pair: KeyPair, host: str) -> bool:
    try:
        found = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False  # not there, or damaged: a new one costs nothing
    fits = key.public_key() == found.public_key() and set(_names(host)) <= set(names)
    return fits and found.not_valid_after_utc - _RENEW_BEFORE > datetime.now(UTC)


def _make(pair: KeyPair, host: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(pair.key, secret)
    _write(pair.certificate, made.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    # O_EXCL with the mode at creation: the key is at no moment readable by others.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
