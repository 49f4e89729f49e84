"""What is given to scanners: all of it, to each of them, and hashed once."""

import asyncio
import hashlib
import io

from filters._scanners.said import Octets

WHOLE = bytes(5 << 20)  # more than is hashed at a time


def test_octets_are_hashed_once_though_two_engines_ask_at_the_same_time():
    opened = []

    def file():
        opened.append(io.BytesIO(WHOLE))
        return opened[-1]

    async def both():
        octets = Octets(file)
        return await asyncio.gather(octets.digest(), octets.digest())

    assert asyncio.run(both()) == [hashlib.sha256(WHOLE).hexdigest()] * 2
    assert len(opened) == 1
