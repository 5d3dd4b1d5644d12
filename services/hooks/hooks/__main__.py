"""Start the hooks service: ``python -m hooks`` or ``posthouse-hooks``."""

import sys

from hooks.main import run
from shared.web.serve import run_service


def main() -> None:
    """Run until a signal asks to stop."""
    sys.exit(run_service("hooks", run))


if __name__ == "__main__":
    main()
