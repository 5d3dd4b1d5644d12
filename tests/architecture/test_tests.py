"""Every test that is written is a test that runs."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import PurePath

from architecture.tree import ROOT, Source, files, name, of_tests

TIERS = {"unit", "integration", "e2e", "architecture"}


def written(source: Source) -> list[str]:
    """Return the tests of a file: functions, and methods of classes, whose names say so."""
    found = []
    for node in source.tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        found += [
            one.name
            for one in inside
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test")
        ]
    return found


def misplaced(source: Source) -> list[str]:
    """Return what keeps tests of a file from running: its name, a class pytest does not look into, a name used twice."""
    path, names = PurePath(source.name), written(source)
    if not names:
        return [f"{source.name} has no tests"] if path.name.startswith("test_") else []
    found = [] if path.name.startswith("test_") else [f"{source.name} has tests and is not named test_*.py"]
    found += [f"{source.name}: {one} is written twice" for one in sorted(set(names)) if names.count(one) > 1]
    for node in source.tree.body:
        if (
            isinstance(node, ast.ClassDef)
            and not node.name.startswith("Test")
            and any(one in names for one in _methods(node))
        ):
            found.append(f"{source.name}: {node.name} has tests and is not named Test...")
    if path.parts[1] not in TIERS:
        found.append(f"{source.name} is in no tier: {', '.join(sorted(TIERS))}")
    return found


def _methods(node: ast.ClassDef) -> list[str]:
    return [one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_tests_are_where_pytest_looks() -> None:
    assert [found for source in of_tests() for found in misplaced(source)] == []


def test_test_folders_are_no_packages() -> None:
    # importlib mode tells files of one name apart by their folders; a package would be imported by its name.
    assert [name(path) for path in files() if path.name == "__init__.py" and ROOT / "tests" in path.parents] == []


def test_pytest_collects_every_test() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-n", "0", "tests"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    collected: dict[str, set[str]] = defaultdict(set)
    for line in done.stdout.splitlines():
        file, _, rest = line.partition("::")
        if rest:
            collected[file].add(rest.partition("[")[0].rpartition("::")[2])
    missing = {source.name: set(written(source)) - collected[source.name] for source in of_tests()}
    assert {file: sorted(names) for file, names in missing.items() if names} == {}


def test_the_rules_find_what_they_forbid() -> None:
    test = "def test_a(): ...\n"
    assert misplaced(Source("tests/unit/x/test_a.py", test)) == []
    assert misplaced(Source("tests/unit/x/data.py", "def a(): ...\n")) == []
    assert len(misplaced(Source("tests/unit/x/data.py", test))) == 1
    assert len(misplaced(Source("tests/unit/x/test_a.py", "def a(): ...\n"))) == 1
    assert len(misplaced(Source("tests/unit/x/test_a.py", test + test))) == 1
    assert len(misplaced(Source("tests/unit/x/test_a.py", "class A:\n    def test_a(self): ...\n"))) == 1
    assert len(misplaced(Source("tests/other/test_a.py", test))) == 1
