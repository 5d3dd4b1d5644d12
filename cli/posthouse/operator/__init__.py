"""Commands for operators, all of them over the documented REST interface and nothing else.

Reading order: ``place`` (which installation, which key) -> ``client`` (requests, pages, errors) -> ``command`` (what all the
commands share) -> ``accounts``, ``domains``, ``credentials``, ``failures``, ``holds``, ``routes``, ``traffic`` (the commands) -> ``show`` (tables for people, JSON for
programs).

Exit codes: 0 done; 1 the installation refused or did not answer; 2 something given was wrong.
"""

import typer

from posthouse.operator import accounts, credentials, domains, failures, holds, routes, traffic


def register(app: typer.Typer) -> None:
    """Add the groups of the modules above, such as ``account`` and ``hold-rule``."""
    for module in (accounts, domains, credentials, failures, holds, routes, traffic):
        for group in module.groups():
            app.add_typer(group)
