"""How a next hop is paced: what it may have and has earned, who is behind a domain, and what operators say about both.

"pre" in the name: may run before the code that needs it.
"""

from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # conn_limit is what a site may have now; conn_most what its rule allows, up to which success raises it.
    """ALTER TABLE site
        ADD COLUMN conn_most integer NOT NULL DEFAULT 1,
        ADD COLUMN proven boolean NOT NULL DEFAULT false,
        ADD COLUMN failures smallint NOT NULL DEFAULT 0,
        ADD COLUMN pace real NOT NULL DEFAULT 1 CHECK (pace > 0 AND pace <= 1),
        ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()""",
    "UPDATE site SET conn_most = conn_limit, proven = true",
    "CREATE INDEX site_next_proven ON site (queue, next_at) WHERE proven",
    # Which slots of a site are the oldest ones.
    "CREATE INDEX site_slot_site ON site_slot (site_id, id)",
    # Behind whose hosts a recipient domain is.
    """CREATE TABLE domain_provider (
        domain text PRIMARY KEY,
        provider text NOT NULL,
        seen_at timestamptz NOT NULL DEFAULT now()
    )""",
    "CREATE INDEX domain_provider_seen ON domain_provider (seen_at)",
)


def upgrade() -> None:
    """Add columns and tables; sites are few, so building their index takes no time."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Take them away again: what sites have earned is earned anew."""
    for statement in (
        "DROP TABLE domain_provider",
        "DROP INDEX site_slot_site",
        "DROP INDEX site_next_proven",
        "ALTER TABLE site DROP COLUMN conn_most, DROP COLUMN proven, DROP COLUMN failures, DROP COLUMN pace, DROP COLUMN changed_at",
    ):
        op.execute(statement)
