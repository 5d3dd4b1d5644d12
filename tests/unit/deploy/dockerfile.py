"""Reads deploy/Dockerfile, as far as the tests need it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Stage:
    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Dockerfile:
    arguments: dict[str, str]
    stages: list[Stage]

    @classmethod
    def parse(cls, text: str) -> "Dockerfile":
        result = cls({}, [])
        for word, rest in _instructions(text):
            if word == "FROM":
                base, _, name = rest.partition(" AS ")
                result.stages.append(Stage(base.strip(), name.strip()))
            elif result.stages:
                result.stages[-1].instructions.append((word, rest))
            if word == "ARG" and "=" in rest:
                name, _, value = rest.partition("=")
                result.arguments[name] = value
        return result

    def lineage(self, name: str) -> list[Stage]:
        """Return a stage and those it stands on, the stage last; empty where there is none of this name."""
        named = {stage.name: stage for stage in self.stages if stage.name}
        found: list[Stage] = []
        while name in named:
            found.insert(0, named[name])
            name = named[name].base
        return found

    def of(self, service: str, word: str) -> list[str]:
        """Return what all instructions of a kind say that hold for the image of a service, in order."""
        return [rest for stage in self.lineage(f"image-{service}") for kind, rest in stage.instructions if kind == word]

    def last(self, service: str, word: str) -> str:
        return next(iter(reversed(self.of(service, word))), "")

    def environment(self, service: str) -> dict[str, str]:
        pairs = [pair for line in self.of(service, "ENV") for pair in line.split()]
        return dict(pair.split("=", 1) for pair in pairs)

    def ports(self, service: str) -> list[int]:
        return sorted(int(port) for line in self.of(service, "EXPOSE") for port in line.split())

    def entrypoint(self, service: str) -> list[str]:
        parts = json.loads(self.last(service, "ENTRYPOINT") or "[]")
        return [str(part) for part in parts]

    def sources(self) -> list[str]:
        """Return what is copied out of the checkout."""
        lines = [rest for stage in self.stages for word, rest in stage.instructions if word == "COPY"]
        return [source for line in lines if not line.startswith("--from=") for source in line.split()[:-1]]


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        yield word.upper(), rest.strip()


def ignored(path: str, dockerignore: Path) -> bool:
    """Say whether .dockerignore keeps a path out of the build: the last rule that speaks of it or of a parent decides."""
    kept_out = False
    parts = path.split("/")
    parents = {"/".join(parts[: index + 1]) for index in range(len(parts))}
    for line in dockerignore.read_text().splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!")
        expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(expression, parent) for parent in parents):
            kept_out = not rule.startswith("!")
    return kept_out
