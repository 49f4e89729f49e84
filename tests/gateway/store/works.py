"""Small works for a store on any database; accounts are the simplest rows."""

import asyncio
import threading
from contextlib import asynccontextmanager

from sqlalchemy import insert, select

from gateway.store import schema

account = schema.account


def add(name, size=1):
    row = {"login": name, "password_hash": "x" * size, "created_at": 0.0}

    def work(conn):
        conn.execute(insert(account), row)
        return 1

    return work


def names(store):
    with store.reading() as conn:
        return set(conn.scalars(select(account.c.login)))


@asynccontextmanager
async def held_up(store):
    """While the block runs, a write is in its transaction, and all others wait for the next one."""
    begun, end = threading.Event(), threading.Event()

    def work(_conn):
        begun.set()
        end.wait(10)

    first = asyncio.ensure_future(store.write(work))
    assert await asyncio.to_thread(begun.wait, 10)
    try:
        yield first
    finally:
        end.set()
        await asyncio.gather(first, return_exceptions=True)


def together(store, *works):
    """What each of *works* came to when all waited for the same commit."""

    async def run():
        async with held_up(store):
            rest = [asyncio.ensure_future(store.write(work)) for work in works]
            await asyncio.sleep(0)  # each has submitted its work
        return await asyncio.gather(*rest, return_exceptions=True)

    return asyncio.run(run())
