"""Tables for DMARC aggregate reports: what to tell, what was told, and what others told us."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add four tables."""
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "dmarc_observation",
        sa.Column("id", serial, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index("ix_dmarc_observation_domain", "dmarc_observation", ["domain", "at"])
    op.create_table(
        "dmarc_sent",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("begins", sa.Double(), nullable=False),
        sa.Column("ends", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("mails", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("domain", "begins"),
    )
    op.create_table(
        "dmarc_report",
        sa.Column("id", serial, primary_key=True, autoincrement=True),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("proof", sa.String(16), nullable=False),
        sa.Column("report_id", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("begins", sa.Double(), nullable=False),
        sa.Column("ends", sa.Double(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.UniqueConstraint("org", "report_id", "domain", "sender", name="uq_dmarc_report_org_report_id_domain_sender"),
    )
    op.create_table(
        "dmarc_record",
        sa.Column("id", serial, primary_key=True, autoincrement=True),
        sa.Column("report", serial, sa.ForeignKey("dmarc_report.id", ondelete="CASCADE"), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("disposition", sa.String(16), nullable=False),
        sa.Column("dkim", sa.String(16), nullable=False),
        sa.Column("spf", sa.String(16), nullable=False),
        sa.Column("header_from", sa.Text(), nullable=False),
        sa.Column("envelope_from", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_index("ix_dmarc_record_report", "dmarc_record", ["report"])
