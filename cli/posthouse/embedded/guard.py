"""Watches a pipe and signals a process when the pipe closes: the parent-death signal of systems that have none.

Run as a script with the process id and the signal number; reads standard input, whose other end only the parent holds. One
line means that the process has ended and the guard is not needed any more; an end without it, that the parent has died.
"""

import contextlib
import os
import sys


def main() -> None:
    """Wait for the line or the end."""
    pid, number = int(sys.argv[1]), int(sys.argv[2])
    if not sys.stdin.buffer.readline():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


if __name__ == "__main__":
    main()
