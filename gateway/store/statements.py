"""Statements compiled once for each database, and run on its driver's own cursor.

For the few that every mail needs: what SQLAlchemy does around a statement costs three times what the statement costs.
Rows come as the driver gives them (SQLite has 0 and 1 for truths); errors are SQLAlchemy's, as everywhere in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import Executable

Values = Mapping[str, Any]


class _Compiled(NamedTuple):
    """A statement as one database wants it; `bound` makes of our values what its driver takes."""

    sql: str
    bound: Callable[[Values], Any]


class Statement:
    """*statement*, ready to run. Its values come by name: of `bindparam`, or of the *columns* that it sets.

    Values go to the driver as they are: truths, numbers, text (of an Enum too), bytes and None. A list for IN cannot be
    bound: name each of its places with a `bindparam` of its own.
    """

    def __init__(self, statement: Executable, *columns: str) -> None:
        self._statement = statement
        self._columns = columns or None
        self._compiled: dict[str, _Compiled] = {}

    def run(self, conn: Connection, values: Values) -> int:
        """Run it once; return how many rows it changed."""
        sql, bound = self._for(conn.dialect)
        with _cursor(conn, sql) as cursor:
            cursor.execute(sql, bound(values))
            return cursor.rowcount

    def run_many(self, conn: Connection, many: Sequence[Values]) -> None:
        """Run it once with each of *many*."""
        sql, bound = self._for(conn.dialect)
        with _cursor(conn, sql) as cursor:
            cursor.executemany(sql, [bound(values) for values in many])

    def rows(self, conn: Connection, values: Values) -> Sequence[Sequence[Any]]:
        """Run it, and return all rows that it selects or returns."""
        sql, bound = self._for(conn.dialect)
        with _cursor(conn, sql) as cursor:
            cursor.execute(sql, bound(values))
            return cursor.fetchall()

    def _for(self, dialect: Dialect) -> _Compiled:
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _compiled(self._statement, self._columns, dialect)
        return compiled


def _compiled(statement: Executable, columns: Sequence[str] | None, dialect: Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect, column_keys=columns)  # type: ignore[attr-defined]
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - only DDL compiles to something else
    fixed = {name: one.value for one, name in compiled.bind_names.items() if not one.required}
    names = compiled.positiontup
    if names is None:  # placeholders with names
        return _Compiled(str(compiled), lambda values: {**fixed, **values})
    if not fixed:
        return _Compiled(str(compiled), lambda values: [values[name] for name in names])
    return _Compiled(str(compiled), lambda values: [values[name] if name in values else fixed[name] for name in names])


@contextmanager
def _cursor(conn: Connection, sql: str) -> Iterator[DBAPICursor]:
    """A cursor of the driver in the transaction of *conn*."""
    driver = conn.dialect.loaded_dbapi
    cursor = conn.connection.cursor()
    try:
        yield cursor
    except driver.Error as error:
        raise _named(conn, sql, error, driver.Error) from error
    finally:
        cursor.close()


def _named(conn: Connection, sql: str, error: Exception, base: type[Exception]) -> BaseException:
    """*error* as SQLAlchemy would have raised it; a connection that is lost is given up. No value is quoted."""
    lost = conn.dialect.is_disconnect(error, conn.connection, None)  # type: ignore[arg-type]
    if lost:
        conn.invalidate(error)
    return DBAPIError.instance(
        sql, None, error, base, hide_parameters=True, connection_invalidated=lost, dialect=conn.dialect
    )
