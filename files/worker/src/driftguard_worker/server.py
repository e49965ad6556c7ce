# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The HTTP server, in the worker's own event loop."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import Iterator

import uvicorn
from starlette.applications import Starlette

from .errors import ExitStatus, WorkerError

__all__ = ["HttpServer", "listen"]

_BACKLOG = 64


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port in use is found before anything else is done.

    :param host: IP address.
    :param port: 0 for any free one.
    :raises WorkerError: nothing can listen there.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        family, kind, protocol, _name, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unavailable(host, port, error) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise _unavailable(host, port, error) from None
    return bound


class HttpServer(uvicorn.Server):
    """uvicorn as a part of the worker: the worker handles signals and logs. Must be made in the running event loop."""

    def __init__(self, application: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._stopped = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGTERM and SIGINT to the worker, which drains before it stops serving."""
        yield

    async def main_loop(self) -> None:
        """Wait for :meth:`stop`. uvicorn's own loop wakes ten times a second, for dates and limits not used here."""
        await self._stopped.wait()

    def stop(self) -> None:
        """Let ``serve`` end."""
        self.should_exit = True
        self._stopped.set()


def _unavailable(host: str, port: int, error: OSError) -> WorkerError:
    return WorkerError(
        ExitStatus.PORT,
        f"HEALTH_HOST and HEALTH_PORT ({host}:{port})",
        "an address to listen on",
        error.strerror or str(error),
        "stop what listens there, or give each worker that shares a network its own HEALTH_PORT",
    )
