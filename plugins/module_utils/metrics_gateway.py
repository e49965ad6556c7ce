# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that asks containers over HTTP. Who answers may be hostile: time and length are bounded as a whole."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Mapping, Optional, Sequence

PATIENCE = 2.0  # seconds for one answer as a whole
MAX_ANSWER = 1024 * 1024
AT_ONCE = 16
_CHUNK = 65536
_STATUS = re.compile(rb"HTTP/1\.[01] 200(?: |\r|\Z)")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?=\r\n|\Z)", re.IGNORECASE)
_CODED = re.compile(rb"\r\n(?:transfer|content)-encoding:", re.IGNORECASE)


def fetch_all(places: Mapping[str, Sequence[str]], port: int, path: str) -> dict[str, Optional[str]]:
    """Ask several at once.

    :param places: name → addresses, of which the first that answers counts.
    :returns: name → text, None for one that gave no answer that is one.
    """
    if not places:
        return {}
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(places))) as pool:
        asked = {name: pool.submit(_first, addresses, port, path) for name, addresses in places.items()}
        return {name: answer.result() for name, answer in asked.items()}


def _first(addresses: Sequence[str], port: int, path: str) -> Optional[str]:
    end = time.monotonic() + PATIENCE
    for address in addresses:
        answer = fetch(address, port, path, end)
        if answer is not None:
            return answer
    return None


def fetch(address: str, port: int, path: str, end: float) -> Optional[str]:
    """GET one document as text, undecodable bytes replaced.

    HTTP/1.0, which asks for a plain body and the connection's end; no redirect is followed, no proxy asked.

    :param end: the monotonic time by which the whole answer must be there.
    :returns: None for anything but a whole answer with status 200 of at most :data:`MAX_ANSWER` bytes.
    """
    try:
        with socket.create_connection((address, port), timeout=_left(end)) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: worker\r\nConnection: close\r\n\r\n".encode())
            said = _read(connection, end)
    except OSError:
        return None
    return _body(said)


def _read(connection: socket.socket, end: float) -> bytes:
    said = bytearray()
    while len(said) <= MAX_ANSWER and not _is_whole(said):
        # Anew for each piece: one byte every second would outlast any limit of a single wait.
        connection.settimeout(_left(end))
        piece = connection.recv(_CHUNK)
        if not piece:
            break
        said += piece
    return bytes(said)


def _is_whole(said: bytearray) -> bool:
    head, mark, body = said.partition(b"\r\n\r\n")
    length = _LENGTH.search(head) if mark else None
    return length is not None and len(body) >= int(length[1])


def _body(said: bytes) -> Optional[str]:
    head, mark, body = said.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if not mark or not _STATUS.match(head) or _CODED.search(head) or len(said) > MAX_ANSWER:
        return None
    # Half an answer would look like counters that went back.
    return None if length and len(body) != int(length[1]) else body.decode("utf-8", "replace")


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("no time left")
    return left
