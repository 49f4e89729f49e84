"""A client that says lines and waits for replies, for what a dialog in a file cannot say."""

import asyncio
import contextlib

from tests.gateway.smtp.conversation import DEADLINE

EHLO = b"EHLO client.example\r\n"


ENVELOPE = b"MAIL FROM:<a@out.example>\r\nRCPT TO:<b@in.example>\r\n"


def run(play):
    return asyncio.run(asyncio.wait_for(play, 20))


@contextlib.asynccontextmanager
async def client(port, *, limit=1 << 16, **how):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit, **how)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(reader, writer, said, *codes):
    """Say *said*, and read replies until each of *codes* has come as the code of a last line."""
    writer.write(said)
    for code in codes:
        line = b"---- "
        while line[3:4] == b"-":
            line = await asyncio.wait_for(reader.readline(), DEADLINE)
        assert line.startswith(code.encode()), (line, code)


async def eventually(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")
