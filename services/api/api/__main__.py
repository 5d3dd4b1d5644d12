"""Start the api service: ``python -m api`` or ``posthouse-api``."""

import sys

from api.app import SERVICE
from api.main import run
from shared.web.serve import run_service


def main() -> None:
    """Run until a signal asks to stop."""
    sys.exit(run_service(SERVICE, run))


if __name__ == "__main__":
    main()
