# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ProxyCommand of SSH that is slow, and breaks: ``slow_ssh.py FILE HOST PORT``.

The file holds ``{"milliseconds": 200, "break_after": 65536}``: how long each piece of data is held back on its way out
and again on its way in, and after how many bytes a connection breaks (0: never). It is read again for every piece, so
that a connection that is open already gets slow, or breaks, in the middle; a file that is gone means neither.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from collections import deque
from pathlib import Path

PIECE = 65536
BROKEN = 255


def settings(path: Path) -> tuple[float, int]:
    """Seconds to hold data back, and bytes after which the connection breaks."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0, 0
    return found["milliseconds"] / 1000, found["break_after"]


class Relay:
    """Bytes between standard input and output and a host, each held back for a while."""

    def __init__(self, path: Path, there: socket.socket) -> None:
        self._path = path
        self._there = there
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self._passed = 0

    def run(self) -> int:
        """Relay until one side ends or the connection breaks; the exit status."""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ, self._there.fileno())
            selector.register(self._there.fileno(), selectors.EVENT_READ, 1)
            while True:
                for key, _events in selector.select(self._pause()):
                    data = os.read(key.fd, PIECE)
                    seconds, limit = settings(self._path)
                    self._passed += len(data)
                    if limit and self._passed > limit:
                        return BROKEN
                    self._waiting.append((time.monotonic() + seconds, key.data, data))
                    if not data:
                        selector.unregister(key.fd)
                if self._deliver():
                    return 0

    def _pause(self) -> float | None:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def _deliver(self) -> bool:
        """Pass on what has been held back long enough; whether a side has ended and all it said is through."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _due, where, data = self._waiting.popleft()
            if not data:
                return True
            while data:
                data = data[os.write(where, data):]
        return False


def main() -> int:
    """Connect and relay."""
    path, host, port = sys.argv[1:]
    time.sleep(settings(Path(path))[0] * 2)  # a connection is made by a way there and back
    try:
        with socket.create_connection((host, int(port)), timeout=10) as there:
            there.settimeout(None)
            return Relay(Path(path), there).run()
    except OSError as error:
        print(f"slow_ssh: {host} port {port}: {error}", file=sys.stderr)
        return BROKEN


if __name__ == "__main__":
    sys.exit(main())
