"""Connections through a SOCKS5 proxy (RFC 1928): the request to connect, without names, so that what was checked is dialed."""

import asyncio
import socket
import struct
from ipaddress import ip_address

from delivery.smtp.facts import Proxy

_VERSION = 5
_NO_LOGIN, _PASSWORD = 0, 2  # RFC 1928 3
_CONNECT = 1  # RFC 1928 4
_IPV4, _NAME, _IPV6 = 1, 3, 4  # RFC 1928 5
_REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}  # RFC 1928 6


async def connect_through(proxy: Proxy, ip: str, port: int) -> socket.socket:
    """Return a socket that leads through the proxy to an address; the caller closes it.

    Raises:
        OSError: there is no connection; the text says where it failed.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
        await _log_in(connection, proxy)
        await _ask(connection, ip, port)
    except BaseException:  # cancelled, too
        connection.close()
        raise
    return connection


async def _log_in(connection: socket.socket, proxy: Proxy) -> None:
    """Agree on how to log in, and do so (RFC 1928 3, RFC 1929 2)."""
    loop = asyncio.get_running_loop()
    methods = bytes([_NO_LOGIN] if proxy.user is None else [_PASSWORD])  # the password only to whom it was meant for
    await loop.sock_sendall(connection, bytes([_VERSION, len(methods)]) + methods)
    version, method = await _read(connection, 2)
    if version != _VERSION:
        raise ConnectionError("the proxy does not speak SOCKS5")
    if method not in methods:
        raise ConnectionError(
            "the proxy wants a login" if proxy.user is None else "the proxy takes no user name and password"
        )
    if proxy.user is not None:
        user, password = proxy.user.encode(), proxy.password.encode()
        await loop.sock_sendall(
            connection, b"".join((b"\x01", bytes([len(user)]), user, bytes([len(password)]), password))
        )
        _, status = await _read(connection, 2)
        if status != 0:
            raise ConnectionError("the proxy refuses our login")


async def _ask(connection: socket.socket, ip: str, port: int) -> None:
    """Ask for a connection, and read to the end of the answer (RFC 1928 4 to 6)."""
    target = ip_address(ip)
    kind = _IPV4 if target.version == 4 else _IPV6
    request = bytes([_VERSION, _CONNECT, 0, kind]) + target.packed + struct.pack("!H", port)
    await asyncio.get_running_loop().sock_sendall(connection, request)
    version, status, _, kind = await _read(connection, 4)
    if version != _VERSION:
        raise ConnectionError("the proxy does not speak SOCKS5")
    if status != 0:
        raise ConnectionError(f"the proxy cannot connect: {_REPLIES.get(status, f'error {status}')}")
    if kind == _NAME:
        (length,) = await _read(connection, 1)
    else:
        length = 16 if kind == _IPV6 else 4
    await _read(connection, length + 2)


async def _read(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        more = await asyncio.get_running_loop().sock_recv(connection, count - len(received))
        if not more:
            raise ConnectionError("the proxy closed the connection")
        received += more
    return received
