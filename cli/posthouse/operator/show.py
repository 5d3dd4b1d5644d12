"""What the operator commands print: tables and sentences for people, one JSON document for programs."""

import json
import os
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posthouse.operator.client import Document, Listing

Columns = Mapping[str, str]
"""Heading to field, in order."""

_WIDE = 10_000


class Output:
    """Standard output in one of its two forms."""

    def __init__(self, *, as_json: bool) -> None:
        """Take which."""
        self.as_json = as_json

    def items(self, listing: Listing, columns: Columns, nothing: str) -> None:
        """Show a list; ``nothing`` is said of an empty one."""
        if self.as_json:
            self.document([*listing.items])
        elif listing.items:
            rows = [[item.get(field) for field in columns.values()] for item in listing.items]
            self.table([*columns], rows)
        else:
            say(nothing)
        if listing.more:
            note("there is more: ask for it with --limit")

    def item(self, item: Document, columns: Columns) -> None:
        """Show one thing, a line for each field."""
        if self.as_json:
            self.document(item)
            return
        width = max(map(len, columns))
        for heading, field in columns.items():
            say(f"{heading:<{width}}  {plain(item.get(field))}")

    def secret(self, item: Document, field: str, sentence: str, use: str) -> None:
        """Show something with a secret in it, and say that this was the only time."""
        if self.as_json:
            self.document(item)
        else:
            # The secret stands alone on its line and is never wrapped, so that a double click takes all of it.
            say(f"{sentence}\n\n  {plain(item.get(field))}\n\n{use}")
        note("the secret is shown this once and cannot be read again: store it now")

    def done(self, sentence: str, item: Document) -> None:
        """Say that something was done."""
        if self.as_json:
            self.document(item)
        else:
            say(sentence)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Show a table; as wide as it needs where no terminal limits it."""
        if self.as_json:
            return
        terminal = sys.stdout.isatty()
        console = Console(width=None if terminal else _WIDE)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(value)) for value in row))
        with console.capture() as captured:
            console.print(table)
        say("\n".join(line.rstrip() for line in captured.get().splitlines()))

    def document(self, document: object) -> None:
        """Print a JSON document."""
        say(json.dumps(document, indent=2, ensure_ascii=False))


def say(line: str) -> None:
    """Print to standard output at once; a reader that has gone away is no reason to stop."""
    try:
        print(line, flush=True)  # noqa: T201 - the command line talks to people
    except BrokenPipeError:
        # Python flushes once more at its end, and would exit with 120 then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plain(value: object) -> str:
    """Return a value as text that no terminal takes for a command."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(plain(part) for part in value)
    return "".join(character if character.isprintable() else "\ufffd" for character in str(value))


def note(line: str) -> None:
    """Say something about the output, where it is not in the way of it."""
    print(f"posthouse: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the command line talks to people
