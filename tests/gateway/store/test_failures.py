"""Failures of the database, by the names that administrators can look up."""

import pytest

from gateway.model import Temporary
from gateway.store.engine import Store


def test_a_file_that_is_no_database_is_told_as_such(tmp_path):
    (tmp_path / "file.db").write_bytes(b"no database" * 100)
    with pytest.raises(Temporary, match="SQLITE_NOTADB"):
        Store(f"sqlite:///{tmp_path}/file.db").migrate()
