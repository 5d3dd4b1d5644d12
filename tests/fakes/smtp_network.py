"""Several SMTP servers on one port of different loopback addresses, and the DNS that names them: MX hosts as they are found.

::

    async with smtp_network({"127.0.0.2": Script(greeting="421 busy"), "::1": Script()}) as network:
        network.zone["b.test"] = {"MX": ["10 one.b.test."]}
        network.zone["one.b.test"] = {"A": ["127.0.0.2"], "AAAA": ["::1"]}
"""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from fakes.dns_server import DnsServer, Zone
from fakes.smtp_server import Script, ScriptedSmtpServer


@dataclass
class SmtpNetwork:
    servers: dict[str, ScriptedSmtpServer]
    dns: DnsServer
    port: int

    @property
    def zone(self) -> Zone:
        return self.dns.zone

    @property
    def visited(self) -> dict[str, int]:
        """How many sessions each address has had, those without left out."""
        return {address: len(server.sessions) for address, server in self.servers.items() if server.sessions}


@asynccontextmanager
async def smtp_network(scripts: Mapping[str, Script]) -> AsyncIterator[SmtpNetwork]:
    port = _free_everywhere(list(scripts))
    async with AsyncExitStack() as stack:
        servers = {
            address: await stack.enter_async_context(ScriptedSmtpServer(script, address, port))
            for address, script in scripts.items()
        }
        dns = await stack.enter_async_context(DnsServer({}))
        yield SmtpNetwork(servers, dns, port)


def _free_everywhere(addresses: list[str]) -> int:
    """Return a port that none of the addresses uses, and no other of the loopback network either: there nobody shall answer."""
    for _ in range(100):
        held: list[socket.socket] = []
        try:
            port = 0
            for address in ["0.0.0.0", *(a for a in addresses if ":" in a)]:
                held.append(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
                held[-1].bind((address, port))
                port = held[-1].getsockname()[1]
        except OSError:
            continue
        else:
            return port
        finally:
            for one in held:
                one.close()
    raise AssertionError("there is no port that is free at all of these addresses")
