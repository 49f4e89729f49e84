"""A server of our own on loopback, in a thread with its own event loop; when its block ends, nothing of it is left."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.peers import processes

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIFETIME = 60.0  # seconds until a connection is cut, whatever it is about
STOP = 10.0  # seconds for the thread to start, and to end
LINE = 1 << 20  # bytes
# Turns of the loop, at most, from accept to our task; a connection between them when its server closes is never closed.
ACCEPTING = 5


class _Server:
    def __init__(self, handle: Handler, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._handle, self._listener, self._tls = handle, listener, tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.started: Future[Callable[[], object]] = Future()

    def serve(self) -> None:
        """The whole life of the thread; `started` yields the function that ends it."""
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            if self.started.done():
                raise
            self.started.set_exception(failure)

    def check(self) -> None:
        """Raise what went wrong in a handler: a fault of the peer itself, not of the program under test."""
        if self._failures:
            raise RuntimeError("the handler of a fake peer failed") from self._failures[0]

    async def _serve(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._listener, ssl=self._tls, limit=LINE)
        self.started.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        loop.remove_reader(self._listener)
        for _ in range(ACCEPTING):
            await asyncio.sleep(0)
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # here, for a task may be cancelled before its start

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(LIFETIME):
                await self._handle(reader, writer)
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, ssl.SSLError):
            pass  # the client went away, or stays too long: either is its own affair
        except Exception as failure:
            self._failures.append(failure)


@contextmanager
def serving(handle: Handler, *, path: Path | None = None, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve on a free TCP port, which it yields, or on the unix socket `path` (then yields 0)."""
    with _listener(path) as listener:
        server = _Server(handle, listener, tls)
        thread = threading.Thread(target=server.serve, name="fake peer")
        thread.start()
        stop = server.started.result(STOP)
        try:
            yield 0 if path else listener.getsockname()[1]
        finally:
            with suppress(RuntimeError):  # its loop has closed already
                stop()
            thread.join(STOP)
            if thread.is_alive():
                raise RuntimeError("the thread of a fake peer does not end")
    server.check()


def _listener(path: Path | None) -> socket.socket:
    if path is None:
        return socket.create_server((processes.HOST, 0), backlog=100)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(100)
    return listener
