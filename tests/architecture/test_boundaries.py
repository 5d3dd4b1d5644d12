"""Who may do what: commit, patch, import."""

import ast
import tomllib
from collections.abc import Iterator
from typing import Any

from architecture.tree import MEMBERS, ROOT, SERVICES, Source, of_tests, sources

COMMITTERS = {
    "shared/shared/db/transaction.py": "the one place that commits",
    "shared/shared/db/migrate.py": "migrations commit for themselves, under an advisory lock",
}
MOCKING = {"mock", "unittest.mock", "pytest_mock"}
PATCHING = {"setattr", "delattr"}


def commits(source: Source) -> list[str]:
    """Return where a file ends a transaction, by a call or by a block of asyncpg's."""
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    return [
        source.at(call.lineno)
        for call in calls
        if isinstance(call.func, ast.Attribute) and (call.func.attr == "commit" or _opens(call))
    ]


def _opens(call: ast.Call) -> bool:
    # connection.transaction() and session.begin() commit at the end of their block; begin_nested() is only a savepoint.
    assert isinstance(call.func, ast.Attribute)
    owner = ast.unparse(call.func.value).lower()
    of_session = any(word in owner for word in ("session", "engine", "connection"))
    return (call.func.attr == "transaction" and "connection" in owner) or (call.func.attr == "begin" and of_session)


def patches(source: Source) -> list[str]:
    """Return where a test replaces our own code, or brings the means to."""
    imported = dict(_imported(source.tree))
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {node.module or ""} if isinstance(node, ast.ImportFrom) else {one.name for one in node.names}
            names = {f"{node.module}.{one.name}" for one in node.names} if isinstance(node, ast.ImportFrom) else set()
            if (modules | names) & MOCKING:
                found.append(source.at(node.lineno))
        elif (isinstance(node, ast.arg) and node.arg == "mocker") or (
            isinstance(node, ast.Call) and _is_patch(node) and _root(node.args[0], imported) in {None, *MEMBERS}
        ):
            found.append(source.at(node.lineno))
    return found


def _is_patch(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in PATCHING and bool(call.args) and not isinstance(call.args[0], ast.Name)
    return isinstance(function, ast.Attribute) and function.attr in PATCHING and bool(call.args)


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((one.asname or one.name.split(".")[0], one.name.split(".")[0]) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((one.asname or one.name, (node.module or "").split(".")[0]) for one in node.names)


def _root(target: ast.expr, imported: dict[str, str]) -> str | None:
    """Return the distribution that a patched thing is of; None where that cannot be seen, which is no excuse."""
    if isinstance(target, ast.Constant) and isinstance(target.value, str):
        return target.value.split(".")[0]
    while isinstance(target, ast.Attribute):
        target = target.value
    return imported.get(target.id) if isinstance(target, ast.Name) else None


def contracts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return found


def test_one_place_commits() -> None:
    found = [place for source in sources() if source.name not in COMMITTERS for place in commits(source)]
    assert found == []
    assert all(commits(source) for source in sources() if source.name in COMMITTERS), "an exception that is not needed"


def test_tests_never_replace_our_own_code() -> None:
    assert [place for source in of_tests() for place in patches(source)] == []


def test_every_service_reads_in_one_direction() -> None:
    layered = {
        container
        for one in contracts()
        if one["type"] == "layers" and one.get("exhaustive")
        for container in one["containers"]
    }
    assert {"shared", *SERVICES} <= layered


def test_services_are_strangers() -> None:
    (independent,) = [set(one["modules"]) for one in contracts() if one["type"] == "independence"]
    assert independent == set(MEMBERS) - {"shared"}
    (forbidden,) = [
        one for one in contracts() if one.get("source_modules") == ["shared"] and one["type"] == "forbidden"
    ]
    assert set(forbidden["forbidden_modules"]) == set(MEMBERS) - {"shared"}


def test_every_service_has_the_same_skeleton() -> None:
    for service in SERVICES:
        present = {path.name for path in MEMBERS[service].iterdir()} | {
            path.name for path in MEMBERS[service].parent.iterdir()
        }
        assert {
            "__init__.py",
            "__main__.py",
            "main.py",
            "config.py",
            "py.typed",
            "README.md",
            "pyproject.toml",
        } <= present, service


def test_the_rules_find_what_they_forbid() -> None:
    for forbidden in (
        "session.commit()",
        "async def f(c):\n    await c.commit()",
        "async def f(connection):\n    async with connection.transaction(): ...",
        "async def f(pool):\n    async with pool.acquire() as connection, connection.transaction(): ...",
        "async def f(sessions):\n    async with sessions() as session, session.begin(): ...",
        "with engine.begin() as c: ...",
    ):
        assert len(commits(Source("x.py", forbidden))) == 1, forbidden
    for allowed in (
        "async def f():\n    async with transaction(pool) as connection: ...",
        "columns.transaction()",
        "session.begin_nested()",
    ):
        assert commits(Source("x.py", allowed)) == []

    for forbidden in (
        "from unittest.mock import Mock",
        "from unittest import mock",
        "import unittest.mock",
        "def test(mocker): ...",
        "from shared.db import queue\nmonkeypatch.setattr(queue, 'claim', None)",
        "import shared.db.queue\nmonkeypatch.setattr(shared.db.queue, 'claim', None)",
        "monkeypatch.setattr('delivery.main.run', None)",
        "monkeypatch.setattr(thing.part, 'name', None)",
        "from api import main\nsetattr(main.app, 'x', 1)",
    ):
        assert len(patches(Source("x.py", forbidden))) == 1, forbidden
    for allowed in ("import os\nmonkeypatch.setattr(os, 'getuid', None)", "monkeypatch.setenv('A', 'b')"):
        assert patches(Source("x.py", allowed)) == []
