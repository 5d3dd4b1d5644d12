"""What a message asks for on its way: whether TLS must protect it (RFC 8689).

"pre" in the name: may run before the code that needs it.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; without a default that takes no time, however many messages there are."""
    op.execute("ALTER TABLE message ADD COLUMN require_tls boolean")


def downgrade() -> None:
    """Take it away again, with what it says of the messages there are."""
    op.execute("ALTER TABLE message DROP COLUMN require_tls")
