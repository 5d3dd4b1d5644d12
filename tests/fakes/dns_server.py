"""A DNS server for tests: real UDP and TCP on one port of 127.0.0.1, answering from a dict.

::

    async with DnsServer({"example.com": {"MX": ["10 mx.example.com."]}, "mx.example.com": {"A": ["192.0.2.1"]}}) as server:
        resolver = Resolver([server.address])

A name maps to its records by type, or to a word: an RCODE such as ``SERVFAIL``, or ``SILENT`` for no answer at all. What
is not in the dict does not exist (NXDOMAIN). ``server.zone`` may be changed at any time.
"""

import asyncio
import struct
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = dict[str, dict[str, list[str]] | str]


class DnsServer:
    def __init__(self, zone: Zone, *, ttl: int = 60, negative_ttl: int = 30, authentic: bool = False) -> None:
        self.zone = zone
        self.ttl, self.negative_ttl, self.authentic = ttl, negative_ttl, authentic
        self.chases = True
        """Whether an answer that is an alias holds what the alias leads to."""
        self.truncated: set[str] = set()
        """Names whose answers over UDP are cut, so that the client must ask again over TCP."""
        self.queries: list[tuple[str, str, str]] = []
        """``(transport, name, type)`` of every question, in order."""
        self.requests: list[dns.message.Message] = []
        self.address = ""
        """``127.0.0.1:port`` once it listens."""
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
        port = self._tcp.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), local_addr=("127.0.0.1", port))
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = self.answer(await reader.readexactly(length), "tcp")
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, rdtype = question.name, question.rdtype
        key = name.to_text(omit_final_dot=True).lower()
        self.queries.append((transport, key, rdtype.name))
        self.requests.append(query)
        response = dns.message.make_response(query, recursion_available=True)
        if self.authentic:
            response.flags |= dns.flags.AD
        if transport == "udp" and key in self.truncated:
            response.flags |= dns.flags.TC
            return response.to_wire()
        for _ in range(40):
            entry = self.zone.get(key)
            if entry == "SILENT":
                return None
            if isinstance(entry, str):
                response.set_rcode(dns.rcode.from_text(entry))
                break
            if entry is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                self._add_soa(response)
                break
            alias = entry.get("CNAME")
            wanted = dns.rdatatype.CNAME if alias else rdtype
            records = alias or entry.get(rdtype.name, [])
            if records:
                response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", wanted, *records))
            else:
                self._add_soa(response)
            if not alias or not self.chases:
                break
            name = dns.name.from_text(alias[0])
            key = name.to_text(omit_final_dot=True).lower()
        try:
            return response.to_wire(max_size=65535 if transport == "tcp" else 1232)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _add_soa(self, response: dns.message.Message) -> None:
        soa = f"ns.test. host.test. 1 2 3 4 {self.negative_ttl}"
        response.authority.append(dns.rrset.from_text(".", self.negative_ttl, "IN", "SOA", soa))


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, "udp")
        if answer is not None:
            self._transport.sendto(answer, addr)
