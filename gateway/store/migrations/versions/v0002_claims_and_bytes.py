"""How often a delivery was claimed in vain, and an index of the mail that still has its bytes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a column and an index."""
    op.add_column("delivery", sa.Column("claims", sa.Integer(), nullable=False, server_default="0"))
    has_bytes = sa.text("chunks > 0")
    op.create_index("ix_message_bytes", "message", ["id"], sqlite_where=has_bytes, postgresql_where=has_bytes)
