"""The first tables: mail, its bytes, deliveries, events, accounts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create everything."""
    _create_message()
    _create_evidence_and_chunk()
    _create_delivery()
    _create_event()
    _create_accounts()


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _of_message() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["message_id"], ["message.id"], ondelete="CASCADE")


def _create_message() -> None:
    op.create_table(
        "message",
        sa.Column("id", sa.String(18), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("peer", sa.String(45), nullable=False),
        sa.Column("listener", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        _text("helo"),
        sa.Column("tls", sa.String(16), nullable=False),
        _text("login"),
        sa.Column("esmtp", sa.Boolean(), nullable=False),
        _text("sender"),
        sa.Column("eight_bit", sa.Boolean(), nullable=False),
        sa.Column("smtputf8", sa.Boolean(), nullable=False),
        sa.Column("ret", sa.String(4), nullable=False),
        _text("envid"),
        _text("subject"),
        _text("header_from"),
        _text("header_message_id"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_message_received_at", "message", ["received_at"])


def _create_evidence_and_chunk() -> None:
    op.create_table(
        "evidence",
        sa.Column("message_id", sa.String(18), nullable=False),
        _text("document"),
        sa.PrimaryKeyConstraint("message_id"),
        _of_message(),
    )
    op.create_table(
        "chunk",
        sa.Column("message_id", sa.String(18), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", "n"),
        _of_message(),
    )


def _create_delivery() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", SERIAL, nullable=False, autoincrement=True),
        sa.Column("message_id", sa.String(18), nullable=False),
        _text("recipient"),
        sa.Column("notify", sa.String(32), nullable=False),
        _text("orcpt"),
        _text("destination"),
        _text("mailbox"),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("next_attempt", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _text("lease_owner"),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("warned", sa.Boolean(), nullable=False),
        sa.Column("notice", sa.String(9), nullable=True),
        _text("last_reply"),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        _text("verdict"),
        sa.Column("header", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        _of_message(),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_delivery_message_id", "delivery", ["message_id"])
    op.create_index("ix_delivery_due", "delivery", ["state", "next_attempt", "lease_until", "destination", "id"])
    _create_partial_index("ix_delivery_mailbox", ["mailbox", "id"], "mailbox != ''")
    _create_partial_index("ix_delivery_notice", ["id"], "notice IS NOT NULL")


def _create_partial_index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "delivery", columns, sqlite_where=where, postgresql_where=where)


def _create_event() -> None:
    op.create_table(
        "event",
        sa.Column("id", SERIAL, nullable=False, autoincrement=True),
        sa.Column("message_id", sa.String(18), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        _text("text"),
        sa.PrimaryKeyConstraint("id"),
        _of_message(),
    )
    op.create_index("ix_event_message_id", "event", ["message_id"])


def _create_accounts() -> None:
    op.create_table(
        "account",
        _text("login"),
        _text("password_hash"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("login"),
    )
    op.create_table(
        "address",
        _text("address"),
        _text("login"),
        sa.PrimaryKeyConstraint("address"),
        sa.ForeignKeyConstraint(["login"], ["account.login"], ondelete="CASCADE"),
    )
    op.create_index("ix_address_login", "address", ["login"])
    op.create_table(
        "maildrop_lock",
        _text("account"),
        _text("owner"),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("account"),
    )
