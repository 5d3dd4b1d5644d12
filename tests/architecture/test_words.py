"""Names, docstrings, marks and excuses: what a reader meets."""

import ast
import re

from architecture.tree import MEMBERS, ROOT, SERVICES, Source, all_python, files, name, qualified, sources, text, words

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "misc", "manager", "managers"}
# Joined here, so that this file holds none of them.
MARKS = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
NOQA = re.compile(r"#\s*noqa\b", re.IGNORECASE)
NOQA_WITH_REASON = re.compile(r"# noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)* - \w.{3,}")
IGNORE = re.compile(r"#\s*type:\s*ignore")
IGNORE_WITH_REASON = re.compile(r"# type: ignore\[[a-z-]+(?:, ?[a-z-]+)*\]\s+(?:# |- )\w.{3,}")


def unexplained_comment(comment: str) -> bool:
    """Say whether a comment silences a tool without naming its rule or a reason."""
    noqa = NOQA.search(comment) and not NOQA_WITH_REASON.search(comment)
    return bool(noqa or (IGNORE.search(comment) and not IGNORE_WITH_REASON.search(comment)))


def unexplained(source: Source) -> list[str]:
    """Return the comments that silence a tool without its rule or without a reason."""
    return [f"{source.at(line)} {comment}" for line, comment in source.comments if unexplained_comment(comment)]


def swallowers(source: Source) -> list[str]:
    """Return the handlers of everything that neither say why on their line nor raise again."""
    explained = {
        line
        for line, comment in source.comments
        if re.fullmatch(r"# \w.{9,}", comment) and not unexplained_comment(comment)
    }
    found = []
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {one.id if isinstance(one, ast.Name) else "" if one is not None else "BaseException" for one in caught}
        raises = any(isinstance(statement, ast.Raise) and statement.exc is None for statement in node.body)
        if names & {"Exception", "BaseException"} and not raises and node.lineno not in explained:
            found.append(source.at(node.lineno))
    return found


def undocumented(source: Source) -> list[str]:
    """Return the module, and its public classes, functions and methods, that have no docstring."""
    found = [] if ast.get_docstring(source.tree) else [source.name]
    public = [(node.name, node) for node in source.tree.body if isinstance(node, ast.ClassDef)]
    nodes = [*public, *((full, node) for full, node, _ in qualified(source))]
    functions = {full for full, _, _ in qualified(source)}
    for full, node in nodes:
        parts = full.split(".")
        inner = any(".".join(parts[:end]) in functions for end in range(1, len(parts)))
        overload = any(ast.unparse(one).endswith("overload") for one in node.decorator_list)
        if (
            not inner
            and not overload
            and not any(part.startswith("_") for part in parts)
            and not ast.get_docstring(node)
        ):
            found.append(f"{source.name}:{full}")
    return found


def empty_names(source: Source) -> list[str]:
    """Return file and class names that say nothing."""
    stem = [part.removesuffix(".py") for part in source.name.split("/")]
    classes = [node.name for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    return [f"{source.name}: {one}" for one in (*stem, *classes) if EMPTY_NAMES & set(words(one))]


def test_tools_are_silenced_with_a_rule_and_a_reason() -> None:
    assert [found for source in all_python() for found in unexplained(source)] == []


def test_nobody_catches_everything_without_a_reason() -> None:
    assert [found for source in all_python() for found in swallowers(source)] == []


def test_every_module_of_the_members_says_what_it_is() -> None:
    scripts = "/migrations/"  # Alembic runs these; a revision has its own form
    found = [source.name for source in sources() if scripts not in source.name and not ast.get_docstring(source.tree)]
    assert found == []


def test_what_is_shared_is_documented() -> None:
    shared = [source for source in sources() if source.name.startswith("shared/") and "/migrations/" not in source.name]
    assert [found for source in shared for found in undocumented(source)] == []


def test_each_service_tells_the_journey_of_its_work_in_numbered_steps() -> None:
    for service in SERVICES:
        docstring = ast.get_docstring(ast.parse((MEMBERS[service] / "__init__.py").read_text())) or ""
        steps = [int(number) for number in re.findall(r"^\s*(\d+)\. \S", docstring, re.MULTILINE)]
        assert len(steps) >= 3, f"{service} has no journey"
        assert steps == list(range(1, len(steps) + 1)), service


def test_names_say_something() -> None:
    assert [found for source in all_python() for found in empty_names(source)] == []


def test_nothing_is_left_for_later() -> None:
    kinds = {".py", ".md", ".yaml", ".yml", ".toml", ".sh", ".mako", ".html", ".css", ".js", ".ts", ""}
    found = [
        f"{name(path)}:{number}"
        for path in files()
        if path.suffix in kinds and "tests/data" not in name(path)
        for number, line in enumerate((text(path) or "").splitlines(), 1)
        if MARKS.search(line)
    ]
    assert found == []


def test_migrations_say_when_they_may_run() -> None:
    folder = ROOT / "shared" / "shared" / "db" / "migrations" / "versions"
    names = [path.name for path in sorted(folder.glob("*.py"))]
    assert names, "the migrations have moved"
    assert [one for one in names if not re.fullmatch(r"\d{4}_(?:pre|post)_[a-z0-9_]+\.py", one)] == []
    assert [int(one[:4]) for one in names] == list(range(1, len(names) + 1))


def test_the_rules_find_what_they_forbid() -> None:
    silenced = Source(
        "x.py", "a = 1  # noqa\nb = 2  # noqa: S608\nc = 3  # type: ignore\nd = 4  # type: ignore[attr-defined]\n"
    )
    assert len(unexplained(silenced)) == 4
    excused = "a = 1  # noqa: S311, S312 - jitter, not a secret\nb = 2  # type: ignore[attr-defined]  # as documented\n"
    assert unexplained(Source("x.py", excused + "c = '# noqa'\n")) == []

    caught = "try:\n    a()\nexcept {}:\n    {}\n"
    for forbidden in ("Exception", "BaseException", "(OSError, Exception)", "Exception as error"):
        assert swallowers(Source("x.py", caught.format(forbidden, "pass"))) == ["x.py:3"]
    assert swallowers(Source("x.py", "try:\n    a()\nexcept:\n    pass\n")) == ["x.py:3"]
    assert swallowers(Source("x.py", caught.format("Exception", "raise"))) == []
    reason = "# noqa: BLE001 - a handler may raise anything"
    assert swallowers(Source("x.py", f"try:\n    a()\nexcept Exception:  {reason}\n    pass\n")) == []
    assert swallowers(Source("x.py", "try:\n    a()\nexcept Exception:  # noqa: BLE001\n    pass\n")) == ["x.py:3"]
    assert swallowers(Source("x.py", caught.format("OSError", "pass"))) == []

    module = "class A:\n    def f(self): ...\n    def _g(self): ...\ndef h():\n    def inner(): ...\nclass _B:\n    def i(self): ...\n"
    assert undocumented(Source("x.py", module)) == ["x.py", "x.py:A", "x.py:A.f", "x.py:h"]

    for bad in ("utils.py", "helpers/x.py", "api/util.py"):
        assert empty_names(Source(bad, "")) != []
    assert empty_names(Source("x.py", "class QueueManager: ...")) != []
    assert empty_names(Source("managed.py", "class Utility: ...")) == []
    assert MARKS.search("# " + "TO" + "DO: later")
    assert not MARKS.search("# to do")
