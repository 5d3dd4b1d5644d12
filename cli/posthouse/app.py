"""The commands of ``posthouse``. A further group of commands is a module with ``register(app)``, named in ``_GROUPS``."""

import sys
from importlib import import_module

import typer

from posthouse.options import settings_command
from posthouse.settings import LocalSettings, MigrateSettings
from shared.errors import ConfigurationError, PosthouseError
from shared.version import VERSION

_GROUPS: tuple[str, ...] = ("posthouse.operator",)
"""Modules that add commands of their own, imported at start, so they import what is slow inside their functions."""

app = typer.Typer(
    name="posthouse",
    help="Posthouse, a self-hosted email sending platform: run it here, bring its database up to date, operate it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command("local")
@settings_command(LocalSettings)
def local(settings: LocalSettings) -> None:
    """Run the whole platform on this machine until Ctrl-C: four services, with a Postgres and a NATS of their own."""
    from posthouse.local import run_local  # noqa: PLC0415 - half a second of imports that `posthouse version` does not need

    run_local(settings)


@app.command("migrate")
@settings_command(MigrateSettings)
def migrate(settings: MigrateSettings) -> None:
    """Bring the database to the schema that this version needs; waits for Postgres. Several at once are safe."""
    from posthouse.migrate import run_migrate  # noqa: PLC0415 - as above

    run_migrate(settings)


@app.command("bootstrap")
def bootstrap() -> None:
    """Print the first operator's key of an empty database, once; reads POSTHOUSE_DATABASE_URL and POSTHOUSE_SECRET_KEY."""
    from posthouse.bootstrap import run_bootstrap  # noqa: PLC0415 - as above

    run_bootstrap()


@app.command("demo")
def demo() -> None:
    """Send a mail through a throw-away stack and watch what becomes of it, in a minute."""
    from posthouse.demo.run import run_demo  # noqa: PLC0415 - as above

    raise typer.Exit(run_demo())


@app.command("version")
def version() -> None:
    """Print the version of this installation."""
    typer.echo(VERSION)


def main() -> None:
    """Run the command that the arguments name, and exit: 2 where something given was wrong, 1 where something else was."""
    for group in _GROUPS:
        import_module(group).register(app)
    try:
        app()
    except PosthouseError as error:
        sys.stderr.write(f"posthouse: {error.message}\n")
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
