"""The versions of the tables, run by alembic on a connection that the store hands over."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(conn: Connection) -> None:
    """Bring the tables to the newest version, inside the transaction of *conn*."""
    config = Config()
    # alembic's configuration gives the per cent sign a meaning
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
