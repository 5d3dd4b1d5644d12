"""Alembic's entry point: always given a connection by ``shared.db.migrate``, so that there is one way to migrate."""

from alembic import context

from shared import models

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=models.metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
