"""The tables, in portable types: SQLite and PostgreSQL differ by URL alone.

Text from strangers has no length here; whoever writes it has cleaned and capped it (`events.clean`). Times are
seconds since the epoch. A change here needs a migration, and a test compares both.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Serial = BigInteger().with_variant(Integer, "sqlite")
"""A number that the database counts up. On SQLite only INTEGER counts by itself, and it has 64 bits there anyway."""

message = Table(
    "message",
    metadata,
    Column("id", String(18), primary_key=True),
    Column("received_at", Double, nullable=False, index=True),
    Column("peer", String(45), nullable=False),
    Column("listener", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("helo", Text, nullable=False),
    Column("tls", String(16), nullable=False),
    Column("login", Text, nullable=False),
    Column("esmtp", Boolean, nullable=False),
    Column("sender", Text, nullable=False),
    Column("eight_bit", Boolean, nullable=False),
    Column("smtputf8", Boolean, nullable=False),
    Column("ret", String(4), nullable=False),
    Column("envid", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("header_from", Text, nullable=False),
    Column("header_message_id", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
)
"""One mail. `size` counts the octets stored, or offered where it was refused; `chunks` is 0 once the bytes are gone."""

has_bytes = message.c.chunks > literal_column("0")
"""The condition of the partial index below, in the words that a query has to use."""

Index("ix_message_bytes", message.c.id, sqlite_where=has_bytes, postgresql_where=has_bytes)

evidence = Table(
    "evidence",
    metadata,
    Column("message_id", ForeignKey(message.c.id, ondelete="CASCADE"), primary_key=True),
    Column("document", Text, nullable=False),
)
"""What the filters found on a mail, as JSON. It outlives the bytes."""

chunk = Table(
    "chunk",
    metadata,
    Column("message_id", ForeignKey(message.c.id, ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
"""The bytes of a mail: all chunks in order of `n` are exactly the message."""

delivery = Table(
    "delivery",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("message_id", ForeignKey(message.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("recipient", Text, nullable=False),
    Column("notify", String(32), nullable=False),
    Column("orcpt", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("mailbox", Text, nullable=False),
    Column("state", String(8), nullable=False),
    Column("since", Double, nullable=False),
    Column("next_attempt", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", Text, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("warned", Boolean, nullable=False),
    Column("notice", String(9), nullable=True),
    Column("last_reply", Text, nullable=False),
    Column("action", String(10), nullable=False),
    Column("score", Double, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("claims", Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
"""One mail for one recipient. Ids are never used twice: POP3's unique ids (RFC 1939 7) are made of them.

`since` is when it came into its state. A lease is free when `lease_until` has passed. `claims` counts the leases since
the last one that ended in order: a mail that kills whoever works on it is known by it.
"""

in_mailbox = delivery.c.mailbox != literal_column("''")
"""The condition of the partial index below; a query has to say it in the same words to use that index."""

Index("ix_delivery_due", *(delivery.c[name] for name in ("state", "next_attempt", "lease_until", "destination", "id")))
Index("ix_delivery_mailbox", delivery.c.mailbox, delivery.c.id, sqlite_where=in_mailbox, postgresql_where=in_mailbox)
Index(
    "ix_delivery_notice",
    delivery.c.id,
    sqlite_where=delivery.c.notice.is_not(None),
    postgresql_where=delivery.c.notice.is_not(None),
)

event = Table(
    "event",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("message_id", ForeignKey(message.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("delivery_id", BigInteger, nullable=True),
    Column("at", Double, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
)
"""What happened to a mail, in order."""

account = Table(
    "account",
    metadata,
    Column("login", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

address = Table(
    "address",
    metadata,
    Column("address", Text, primary_key=True),
    Column("login", ForeignKey(account.c.login, ondelete="CASCADE"), nullable=False, index=True),
)
"""An address belongs to one account. Written in lower case."""

maildrop_lock = Table(
    "maildrop_lock",
    metadata,
    Column("account", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("until", Double, nullable=False),
)
"""Which POP3 session has a maildrop to itself (RFC 1939 4)."""

mark = Table(
    "mark",
    metadata,
    Column("writer", String(16), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)
"""The last transaction of each writer; only where the answer to a COMMIT can be lost (`gateway.store.marks`)."""

dmarc_observation = Table(
    "dmarc_observation",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("domain", Text, nullable=False),
    Column("document", Text, nullable=False),
)
"""What a mail showed of a domain whose owner wants to be told (RFC 9990), as JSON, until the report is sent."""

Index("ix_dmarc_observation_domain", dmarc_observation.c.domain, dmarc_observation.c.at)

dmarc_sent = Table(
    "dmarc_sent",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("begins", Double, primary_key=True),
    Column("ends", Double, nullable=False),
    Column("at", Double, nullable=False),
    Column("mails", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
)
"""The reports that went out, or why none did: one for a domain and a day. `mails` counts what it tells of."""

dmarc_report = Table(
    "dmarc_report",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("received_at", Double, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("org", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("proof", String(16), nullable=False),
    Column("report_id", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("begins", Double, nullable=False),
    Column("ends", Double, nullable=False),
    Column("policy", Text, nullable=False),
    UniqueConstraint("org", "report_id", "domain", "sender", name="uq_dmarc_report_org_report_id_domain_sender"),
)
"""A report that others sent us about a domain of ours. `org` is who says to have made it, `sender` the domain that it
came from, and `proof` how that is known, or empty. `policy` is what they had found published, and more, as JSON."""

dmarc_record = Table(
    "dmarc_record",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("report", ForeignKey(dmarc_report.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("disposition", String(16), nullable=False),
    Column("dkim", String(16), nullable=False),
    Column("spf", String(16), nullable=False),
    Column("header_from", Text, nullable=False),
    Column("envelope_from", Text, nullable=False),
    Column("document", Text, nullable=False),
)
"""One row of such a report: so many mails of one address. `document` has the single results, as JSON."""
