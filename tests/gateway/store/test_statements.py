"""Ready-made statements do what SQLAlchemy would have done with them, on the driver's own cursor."""

import sqlite3
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, bindparam, create_engine, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, OperationalError

from gateway.model import State
from gateway.store import schema
from gateway.store.statements import Statement, _compiled

LOGIN = schema.account.c.login
ADD = Statement(insert(schema.account), "login", "password_hash", "created_at")
ADD_RETURNING = Statement(insert(schema.account).returning(LOGIN), "login", "password_hash", "created_at")
KNOWN = Statement(select(LOGIN).where(LOGIN.in_([bindparam("one"), bindparam("two")])).order_by(LOGIN))
LATER = update(schema.account).where(schema.account.c.login == bindparam("who"), schema.account.c.password_hash == "x")
SET = Statement(LATER, "created_at")


def _account(login: str) -> dict[str, object]:
    return {"login": login, "password_hash": "x", "created_at": 1.5}


@pytest.fixture
def conn() -> Iterator[Connection]:
    engine = create_engine("sqlite://", hide_parameters=True)
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        yield connection
    engine.dispose()


def test_what_one_inserts_is_there_in_the_same_transaction(conn: Connection) -> None:
    ADD.run_many(conn, [_account("anna"), _account("bert")])
    assert ADD_RETURNING.rows(conn, _account("carl")) == [("carl",)]
    assert conn.scalars(select(LOGIN).order_by(LOGIN)).all() == ["anna", "bert", "carl"]
    assert KNOWN.rows(conn, {"one": "carl", "two": "anna"}) == [("anna",), ("carl",)]
    conn.rollback()
    assert KNOWN.rows(conn, {"one": "carl", "two": "anna"}) == []


def test_values_of_the_statement_itself_and_columns_to_set_go_together(conn: Connection) -> None:
    ADD.run(conn, _account("anna"))
    assert SET.run(conn, {"who": "anna", "created_at": 9.0}) == 1
    assert SET.run(conn, {"who": "nobody", "created_at": 9.0}) == 0
    assert conn.scalar(select(schema.account.c.created_at)) == 9.0


def test_a_fault_has_sqlalchemys_name_and_quotes_no_value(conn: Connection) -> None:
    ADD.run(conn, _account("anna-the-secret"))
    with pytest.raises(IntegrityError) as failed:
        ADD.run(conn, _account("anna-the-secret"))
    assert isinstance(failed.value.orig, sqlite3.IntegrityError)
    assert "secret" not in str(failed.value)
    conn.exec_driver_sql("DROP TABLE address")
    conn.exec_driver_sql("DROP TABLE account")
    with pytest.raises(OperationalError, match="no such table"):
        ADD.rows(conn, _account("anna"))


def test_a_driver_with_named_places_gets_all_values_by_name() -> None:
    dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
    sql, bound = _compiled(LATER.where(LOGIN != State.HELD), ["created_at"], dialect)
    assert "SET created_at=%(created_at)s" in sql
    assert bound({"who": "anna", "created_at": 2.0}) == {
        "who": "anna",
        "created_at": 2.0,
        "password_hash_1": "x",
        "login_1": State.HELD,
    }
