"""The files of the project, and what the rules of the house need to know about a Python file."""

import ast
import fnmatch
import io
import os
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEMBERS = {
    "shared": ROOT / "shared" / "shared",
    "api": ROOT / "services" / "api" / "api",
    "delivery": ROOT / "services" / "delivery" / "delivery",
    "hooks": ROOT / "services" / "hooks" / "hooks",
    "dsn_ingest": ROOT / "services" / "dsn-ingest" / "dsn_ingest",
    "posthouse": ROOT / "cli" / "posthouse",
}
SERVICES = ("api", "delivery", "hooks", "dsn_ingest")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@lru_cache
def files() -> tuple[Path, ...]:
    """Return every file that belongs to the project: what is there and what .gitignore does not name."""
    # Not `git ls-files`: the checks also run in a copy of the tree that has no history.
    lines = (ROOT / ".gitignore").read_text().splitlines()
    ignored = [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")] + [".git"]

    def kept(name: str) -> bool:
        return not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)

    found = []
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = sorted(filter(kept, subfolders))
        found += [Path(folder, name) for name in sorted(names) if kept(name)]
    return tuple(found)


def name(path: Path) -> str:
    """Return a path as people write it, from the root."""
    return path.relative_to(ROOT).as_posix()


@lru_cache
def text(path: Path) -> str | None:
    """Return the text of a file, None where it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True)
class Source:
    """A Python file, given as text so that a test can make one up."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """The comments with their line numbers; text in strings is none."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]

    @cached_property
    def functions(self) -> list[FunctionNode]:
        return [node for node in ast.walk(self.tree) if isinstance(node, FunctionNode)]

    def at(self, line: int) -> str:
        return f"{self.name}:{line}"


@lru_cache
def sources() -> tuple[Source, ...]:
    """Return the Python files of the members: what is installed."""
    return tuple(
        Source(name(path), path.read_text(encoding="utf-8"))
        for path in files()
        if path.suffix == ".py" and any(folder in path.parents for folder in MEMBERS.values())
    )


@lru_cache
def of_tests() -> tuple[Source, ...]:
    """Return the Python files of the tests, their fakes and helpers."""
    folder = ROOT / "tests"
    return tuple(
        Source(name(path), path.read_text(encoding="utf-8"))
        for path in files()
        if path.suffix == ".py" and folder in path.parents
    )


def all_python() -> tuple[Source, ...]:
    """Return the sources and the tests."""
    return sources() + of_tests()


def qualified(source: Source) -> Iterator[tuple[str, FunctionNode, bool]]:
    """Yield each function with its name as ``Class.method`` and whether it is a method."""

    def visit(node: ast.AST, prefix: str, *, in_class: bool) -> Iterator[tuple[str, FunctionNode, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, FunctionNode):
                yield prefix + child.name, child, in_class
                yield from visit(child, f"{prefix}{child.name}.", in_class=False)
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, f"{prefix}{child.name}.", in_class=True)
            else:
                yield from visit(child, prefix, in_class=in_class)

    return visit(source.tree, "", in_class=False)


def words(identifier: str) -> list[str]:
    """Split ``a_name``, ``aName`` or ``AName`` into its words, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", identifier)]
