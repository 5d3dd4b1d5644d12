"""Whole stacks for the stories: the services as processes, and ``posthouse local``."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fakes.local_stack import LocalStack
from fakes.stack import HoldingSmtpServer, Stack
from fakes.webhook_receiver import WebhookReceiver

OpenStack = Callable[..., Awaitable[Stack]]

_POSTFIX = "POSTHOUSE_TEST_POSTFIX"
_LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a Postfix where there is none; one line of the summary says so, not one for each test."""
    if _POSTFIX in os.environ or config.option.collectonly:
        return
    left_out = [item for item in items if "postfix_package" in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    config.stash[_LEFT_OUT] = len(left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(_LEFT_OUT, 0)
    if left_out:
        terminalreporter.write_line(
            f"{left_out} tests with a real Postfix were left out: run them as root with {_POSTFIX}=$(.ci/postfix)"
        )


@pytest.fixture(scope="session")
def postfix_package() -> Path:
    """Debian's package, unpacked."""
    return Path(os.environ[_POSTFIX])


@pytest.fixture
async def server() -> AsyncIterator[HoldingSmtpServer]:
    """The mail server of everybody we send to."""
    async with HoldingSmtpServer() as server:
        yield server


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    """The customer's application."""
    async with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
async def open_stack(
    tmp_path_factory: pytest.TempPathFactory, server: HoldingSmtpServer, receiver: WebhookReceiver
) -> AsyncIterator[OpenStack]:
    """Makes stacks of a database URL and settings; nothing of them runs yet, and nothing any more before those they talk to end."""
    stacks: list[Stack] = []

    async def make(database_url: str, **settings: object) -> Stack:
        stack = Stack(tmp_path_factory.mktemp("stack"), database_url, **settings)
        stacks.append(stack)
        return await stack.open()

    yield make
    for stack in stacks:
        await stack.close()


@pytest.fixture
async def stack(open_stack: OpenStack, database_url: str, server: HoldingSmtpServer) -> Stack:
    """A stack that polls, without NATS, and sends everything to ``server``."""
    return await open_stack(database_url, relay=server.address)


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A ``posthouse local`` that simulates, for every test that only uses it."""
    with LocalStack(tmp_path_factory.mktemp("local") / "data") as running:
        yield running
