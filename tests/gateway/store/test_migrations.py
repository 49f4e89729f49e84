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
from sqlalchemy import create_engine, text

from gateway.store import migrations, schema


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
