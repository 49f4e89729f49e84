"""The versions of the tables, run by alembic on a connection that the store hands over."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

HEAD = "0004"
"""The newest version; a new file in `versions` moves it."""
_STAMP = Table("alembic_version", MetaData(), Column("version_num", String(32)))


def upgrade(conn: Connection) -> None:
    """Bring the tables to the newest version, inside the transaction of *conn*."""
    if not is_current(conn):
        _run(conn)


def is_current(conn: Connection) -> bool:
    """Whether the tables are of the newest version."""
    return _version(conn) == HEAD


def _version(conn: Connection) -> str | None:
    return conn.scalar(select(_STAMP.c.version_num)) if inspect(conn).has_table(_STAMP.name) else None


def _run(conn: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - 7 MB and a tenth of a second, for what is hardly ever to be done
    from alembic.config import Config  # noqa: PLC0415 - the same

    config = Config()
    # alembic's configuration gives the per cent sign a meaning
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
