"""What the files of the project may hold and name."""

import re
import shutil
import subprocess
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from architecture.tree import MEMBERS, ROOT, files, name, text

# Joined here, so that this file holds none of them: an address of a registry does not belong into a project that mirrors serve.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
    )
)
GPL = re.compile(r"\b[AL]?GPL|GNU (?:Affero |Lesser |Library )?General Public", re.IGNORECASE)
TOP = ("services/", "shared/", "cli/", "clients/", "deploy/", "docs/", "tests/", "bench/", ".ci/")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"[\w.@-]+(?:/[\w.@*{},-]+)+/?")
LOCKS = tuple(sorted((ROOT / "deploy" / "requirements").glob("*.lock")))


def expanded(path: str) -> list[str]:
    """Return ``a/{b,c}`` as ``a/b`` and ``a/c``."""
    match = re.search(r"\{([^{}]*)\}", path)
    if match is None:
        return [path]
    return list(
        chain.from_iterable(
            expanded(path[: match.start()] + one + path[match.end() :]) for one in match.group(1).split(",")
        )
    )


def named(document: str) -> set[str]:
    """Return the paths of the project that a document names: targets of links, and code that looks like a path."""
    prose = FENCE.sub("", document)
    links = {link.partition("#")[0] for link in LINK.findall(prose) if not re.match(r"[a-z]+:|#", link)}
    code = {one for one in CODE.findall(prose) if PATH.fullmatch(one) and _is_ours(one)}
    return links | set(chain.from_iterable(expanded(one) for one in code))


def _is_ours(path: str) -> bool:
    first = path.split("/", maxsplit=1)[0]
    return path.startswith(TOP) or (first in MEMBERS and path.endswith(".py"))


def exists(path: str, document: Path) -> bool:
    """Say whether a path is there: from the document, the root, or as `shared/db/queue.py`, from the folder of a member."""
    places = (document.parent, ROOT, *(folder.parent for folder in MEMBERS.values()))
    return any(
        next(place.glob(path.rstrip("/")), None) is not None if "*" in path else (place / path).exists()
        for place in places
    )


def licences(distribution: metadata.Distribution) -> list[str]:
    """Return what a package says its licence is; a field that holds a whole licence's text is cut to its first line."""
    fields = distribution.metadata
    stated = [*(fields.get_all("License-Expression") or []), *(fields.get_all("License") or [])]
    classified = [one for one in fields.get_all("Classifier") or [] if one.startswith("License ::")]
    return [one.strip().split("\n")[0] for one in (*stated, *classified)]


def required(lock: Path) -> list[str]:
    """Return the names of a lock that this platform installs."""
    lines = [line.split("\\")[0].strip() for line in lock.read_text().splitlines() if re.match(r"[A-Za-z0-9]", line)]
    requirements = [Requirement(line) for line in lines]
    return [one.name for one in requirements if one.marker is None or one.marker.evaluate()]


def test_paths_named_in_documents_exist() -> None:
    found = [
        f"{name(path)}: {one}"
        for path in files()
        if path.suffix == ".md"
        for one in sorted(named(text(path) or ""))
        if not exists(one, path)
    ]
    assert found == []


def test_no_file_names_a_registry() -> None:
    found = [f"{name(path)}: {host}" for path in files() for host in REGISTRIES if host in (text(path) or "")]
    assert found == []


def test_the_lock_of_uv_stays_out() -> None:
    assert "uv.lock" in (ROOT / ".gitignore").read_text().splitlines()
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("there is no git, or no history, to ask")
    done = subprocess.run(
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "uv.lock"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_nothing_that_is_shipped_is_gpl(lock: Path) -> None:
    found = {}
    for package in required(lock):
        try:
            stated = licences(metadata.distribution(package))
        except metadata.PackageNotFoundError:
            assert lock.stem == "build", f"{package} is not installed: make sync"
            continue
        if not stated or any(GPL.search(one) for one in stated):
            found[package] = stated
    assert found == {}


def test_locks_pin_and_hash_everything() -> None:
    assert {"api", "delivery", "hooks", "dsn-ingest", "local"} <= {lock.stem for lock in LOCKS}
    for lock in (*LOCKS, ROOT / "requirements.lock"):
        entries = re.split(r"\n(?=\S)", lock.read_text().strip())
        unpinned = [
            entry.split()[0]
            for entry in entries
            if not entry.startswith("#") and ("==" not in entry or "--hash=sha256:" not in entry)
        ]
        assert unpinned == [], name(lock)


def test_the_rules_find_what_they_forbid() -> None:
    document = "See [the plan](docs/plan.md#part), `shared/db/{queue,gone}.py`, `text/html`, https://example.org/docs/x.\n```\ndocs/fenced.md\n```\n"
    assert named(document) == {"docs/plan.md", "shared/db/queue.py", "shared/db/gone.py"}
    readme = ROOT / "README.md"
    assert exists("shared/db/queue.py", readme)
    assert exists("services/*/pyproject.toml", readme)
    assert not exists("shared/db/gone.py", readme)
    assert not exists("services/*/gone.toml", readme)
    for forbidden in (
        "GPL-3.0-only",
        "LGPLv2+",
        "License :: OSI Approved :: GNU Lesser General Public License v3",
        "AGPL",
    ):
        assert GPL.search(forbidden), forbidden
    for allowed in ("MIT", "MPL-2.0", "Apache-2.0 OR BSD-3-Clause", "PSF-2.0"):
        assert not GPL.search(allowed)
    assert any(host in "https://" + "pypi" + ".org/simple" for host in REGISTRIES)
