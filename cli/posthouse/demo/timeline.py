"""Prints what happened and when: for a person at a terminal, and as plain text where there is none or NO_COLOR is set."""

import json
import sys

from rich.console import Console, RenderableType
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from posthouse.operator.show import say
from shared.clock import Monotonic, monotonic

_WIDTH_OF_FILES = 120
_TIME, _WORD = 8, 10
_STYLES = {
    "accepted": "bold blue",
    "delivered": "bold green",
    "bounced": "bold yellow",
    "failed": "bold red",
    "suppressed": "bold magenta",
    "webhook": "bold cyan",
    "missing": "bold white on red",
}


class Timeline:
    """The story so far, on standard output."""

    def __init__(self, clock: Monotonic = monotonic) -> None:
        """Begin at zero seconds."""
        self._clock, self._began = clock, clock()
        if not sys.stdout.isatty():
            # A terminal that cannot show a sign shows another; a file or pipe gets UTF-8 or a question mark, never an error.
            reconfigure = getattr(sys.stdout, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="replace")
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def title(self, text: str, *more: str) -> None:
        """Begin with the name of the story, and what it is about."""
        self._print(Text(text, style="bold"))
        for line in more:
            self._print(Text(line, style="dim"))

    def chapter(self, text: str) -> None:
        """Begin the next part."""
        say("")
        self._print(Text(text, style="bold underline"))

    def step(self, word: str, text: str, *details: str) -> None:
        """Tell one thing that was seen, with its details on lines of their own."""
        self._line(f"{self.elapsed:.2f} s", word, Text(text))
        self.details(*details)

    def details(self, *details: str) -> None:
        """Add lines to what was told last."""
        for detail in details:
            self._line("", "", Text(detail, style="dim"))

    def document(self, document: object) -> None:
        """Add a JSON document."""
        text = json.dumps(document, indent=2, ensure_ascii=False)
        self._line("", "", JSONHighlighter()(Text(text)))

    def _line(self, time: str, word: str, content: RenderableType) -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=_TIME, justify="right", no_wrap=True)
        grid.add_column(width=_WORD, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(time, style="dim"), Text(word, style=_STYLES.get(word, "bold")), content)
        self._print(grid)

    def _print(self, content: RenderableType) -> None:
        with self._console.capture() as captured:
            self._console.print(content)
        say("\n".join(line.rstrip() for line in captured.get().splitlines()))
