"""Start the delivery service: ``python -m delivery`` or ``posthouse-delivery``."""

import sys

from delivery.main import run
from shared.web.serve import run_service


def main() -> None:
    """Run until a signal asks to stop."""
    sys.exit(run_service("delivery", run))


if __name__ == "__main__":
    main()
