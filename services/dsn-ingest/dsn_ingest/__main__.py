"""Start the dsn-ingest service: ``python -m dsn_ingest`` or ``posthouse-dsn-ingest``."""

import sys

from dsn_ingest.main import run
from shared.web.serve import run_service


def main() -> None:
    """Run until a signal asks to stop."""
    sys.exit(run_service("dsn-ingest", run))


if __name__ == "__main__":
    main()
