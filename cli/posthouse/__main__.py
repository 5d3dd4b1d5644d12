"""Start the command line: ``posthouse`` or ``python -m posthouse``."""

from posthouse.app import main

if __name__ == "__main__":
    main()
