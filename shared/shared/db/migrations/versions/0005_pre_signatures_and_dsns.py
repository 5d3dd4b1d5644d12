"""How a domain's mail is signed, and of which events the sender is told by mail.

"pre" in the name: may run before the code that needs it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LIVE = "WITH (fillfactor=70, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=5000, autovacuum_vacuum_cost_delay=0)"

_CHANGES = (
    # A signature holds for a week: the hops behind us try for four or five days (RFC 5321 4.5.4.1). Null: for ever.
    """ALTER TABLE domain
        ADD COLUMN dkim_required boolean NOT NULL DEFAULT false,
        ADD COLUMN dkim_expires_after_seconds integer DEFAULT 604800""",
    "ALTER TABLE account ADD COLUMN dsn_to_sender boolean NOT NULL DEFAULT false",
    "ALTER TABLE delivery_queue ADD COLUMN delay_told_at timestamptz",
    f"CREATE TABLE dsn_pending (event_id bigint PRIMARY KEY, retry_until timestamptz) {_LIVE}",
)


def upgrade() -> None:
    """Add columns whose defaults are constants, and an empty table: neither takes time."""
    for statement in _CHANGES:
        op.execute(statement)


def downgrade() -> None:
    """Take them away again; what senders have not been told yet, they are not told."""
    op.execute("DROP TABLE dsn_pending")
    op.execute("ALTER TABLE delivery_queue DROP COLUMN delay_told_at")
    op.execute("ALTER TABLE account DROP COLUMN dsn_to_sender")
    op.execute("ALTER TABLE domain DROP COLUMN dkim_required, DROP COLUMN dkim_expires_after_seconds")
