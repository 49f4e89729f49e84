"""The migrations make what `schema` says, however often they run."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine, inspect, make_url, text

from gateway.store import migrations, schema
from gateway.store.engine import Store

_VERSION = text("SELECT version_num FROM alembic_version")


def test_the_migrations_make_the_tables_of_the_schema(store):
    with store.begin() as conn, warnings.catch_warnings():
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_migrations_make_the_partial_indexes_and_the_keys_of_the_schema(sqlite_url, tmp_path):
    """What alembic does not compare: conditions of indexes, AUTOINCREMENT, ON DELETE."""
    migrated, fresh = Store(sqlite_url), create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    migrated.migrate()
    schema.metadata.create_all(fresh)
    with fresh.connect() as expected, migrated.reading() as found:
        assert _normal(found) == _normal(expected)
    fresh.dispose()
    migrated.close()


def _normal(conn):
    rows = conn.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    made = {name: " ".join(sql.replace(",", " , ").replace(")", " ) ").split()).lower() for name, sql in rows}
    return {name: sorted(sql.split(" , ")) for name, sql in made.items() if not name.startswith("alembic")}


def test_on_postgres_too(database, postgres_url, empty_postgres_url):
    fresh = create_engine(empty_postgres_url)
    schema.metadata.create_all(fresh)
    fresh.dispose()
    found, expected = (_made(database, make_url(url).database) for url in (postgres_url, empty_postgres_url))
    assert len(expected) > 50
    assert found == expected


def _made(database, name):
    """Indexes, constraints and columns, in the server's own words."""
    queries = (
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid > 0",
        (
            "SELECT table_name, column_name, concat(data_type, character_maximum_length, is_nullable, column_default)"
            " FROM information_schema.columns WHERE table_schema = 'public'"
        ),
    )
    rows = [row for query in queries for row in database.execute(query, database=name)]
    # The keys of tables have no names of ours: see the naming convention, which came later than the first tables.
    return sorted((row[0], row[2].lower()) for row in rows if not row[0].startswith(("alembic", "pg_")))


def test_migrating_again_changes_nothing(store, url):
    def dump():
        with store.reading() as conn:
            inspector = inspect(conn)
            return {name: inspector.get_columns(name) for name in inspector.get_table_names()}, conn.scalar(_VERSION)

    before = repr(dump())
    store.migrate()
    assert repr(dump()) == before


def test_the_newest_version_is_the_last_of_the_scripts():
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == migrations.HEAD


def test_tables_of_a_version_that_we_do_not_know_are_left_alone(store):
    with store.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(CommandError, match="9999"):
        store.migrate()


def test_where_nothing_is_to_be_migrated_alembic_is_not_loaded(store, url):
    program = (
        f"import sys; from gateway.store.engine import Store; s = Store({url!r}); s.migrate(); s.close();"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", program], check=False, timeout=30).returncode == 0
