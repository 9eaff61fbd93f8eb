"""Connections whose next byte is awaited: the server ends them after a while, and lets them keep nobody out."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_WAITING = 100  # the one that waits longest is ended for one more
WAIT_SECONDS = 20.0  # for the headers of a request, and for each part of its body


class Connection(H11Protocol):
    """A connection of uvicorn, which limits neither their waiting nor what those that wait take from others.

    since: when the headers of a request were first awaited, or the last part of its body came.
    """

    since = 0.0
    watch: asyncio.TimerHandle

    @property
    def waits(self) -> bool:
        """Whether the headers or the body of a request are not complete."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch a new connection, and end those that wait longest where there are too many."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self._watch()
        waiting = [
            other
            for other in self.connections
            if isinstance(other, Connection) and other.waits and not other.transport.is_closing()
        ]
        waiting.sort(key=lambda other: other.since)
        for oldest in waiting[: max(0, len(waiting) - MOST_WAITING)]:
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Note that a request goes on."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.since = self.loop.time()

    def on_response_complete(self) -> None:
        """Note that the next request is awaited."""
        super().on_response_complete()
        self.since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch the connection no more."""
        self.watch.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """End the connection where it has waited for too long, else look again when it may have."""
        waited = self.loop.time() - self.since if self.waits else 0.0
        if waited >= WAIT_SECONDS:
            self.transport.abort()
            return
        self.watch = self.loop.call_later(WAIT_SECONDS - waited, self._watch)
