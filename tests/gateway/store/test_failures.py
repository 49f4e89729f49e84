"""Failures of the database, by the names that administrators can look up."""

import errno
import sqlite3

import pytest

from gateway.model import Temporary
from gateway.store.engine import Store
from gateway.store.failures import StorageFull, translated


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, StorageFull, "the store is full"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, StorageFull, "the store is full"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Temporary, "the store is locked"),
        (sqlite3.SQLITE_IOERR_FSYNC, Temporary, "the store is out of reach (SQLITE_IOERR_FSYNC)"),
    ],
)
def test_what_sqlite_says_has_one_of_our_names(code, kind, words):
    error = sqlite3.OperationalError("quotes somebody's mail")
    error.sqlite_errorcode = code
    error.sqlite_errorname = next(name for name in dir(sqlite3) if getattr(sqlite3, name) == code and "SQLITE_" in name)
    named = translated(error)
    assert (type(named), str(named)) == (kind, words)


@pytest.mark.parametrize(
    ("error", "name"),
    [(OSError(errno.EINVAL, "no"), "EINVAL"), (BlockingIOError(errno.ENOLCK, "no"), "ENOLCK"), (OSError(), "OSError")],
)
def test_what_the_machine_denies_may_be_had_later(error, name):
    assert str(translated(error)) == f"the machine failed the store ({name})"
    assert isinstance(translated(error), Temporary)


def test_a_file_that_is_no_database_is_told_as_such(tmp_path):
    (tmp_path / "file.db").write_bytes(b"no database" * 100)
    with pytest.raises(Temporary, match="SQLITE_NOTADB"):
        Store(f"sqlite:///{tmp_path}/file.db").migrate()
