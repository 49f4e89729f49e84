"""The migrations make what `schema` says, however often they run."""

import warnings

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from gateway.store import schema


def test_the_migrations_make_the_tables_of_the_schema(store):
    with store.begin() as conn, warnings.catch_warnings():
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_migrations_make_the_partial_indexes_and_the_keys_of_the_schema(store, tmp_path):
    """What alembic does not compare: conditions of indexes, AUTOINCREMENT, ON DELETE."""
    fresh = create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    schema.metadata.create_all(fresh)
    with fresh.connect() as expected, store.reading() as found:
        assert _normal(found) == _normal(expected)
    fresh.dispose()


def _normal(conn):
    rows = conn.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    made = {name: " ".join(sql.replace(",", " , ").replace(")", " ) ").split()).lower() for name, sql in rows}
    return {name: sorted(sql.split(" , ")) for name, sql in made.items() if not name.startswith("alembic")}


def test_migrating_again_changes_nothing(store):
    def dump():
        with store.reading() as conn:
            return conn.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name")).all()

    before = dump()
    store.migrate()
    assert dump() == before
