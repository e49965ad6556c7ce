# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The two threads that talk to Redis: one beats and reads the fleet's record, one listens for hints that it changed."""

from __future__ import annotations

import random
import threading
import time

from supervisor_registration import HEARTBEAT_SECONDS, TTL_SECONDS, Registration
from supervisor_resp import Client, RedisFault, ReplyError, TooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

    from supervisor_registration import Identity
    from supervisor_resp import Endpoint

_FIRST_RETRY_SECONDS = 0.25
_SPACING_SECONDS = 0.01  # between two readings: a flood of messages is no reason for a flood of questions
_IDLE_SECONDS = 10.0
_WITHOUT_RIGHT_SECONDS = 60.0
_WITHDRAWALS = 2


class News:
    """What the main thread is told: the record as Redis has it, or why it couldn't be asked."""

    def __init__(self, record: Optional[bytes] = None, fault: str = "", refused: bool = False) -> None:
        self.record, self.fault, self.refused = record, fault, refused
        self.at = time.monotonic()


def backoff(failures: int) -> float:
    """Seconds until the next attempt, with jitter: all workers of a fleet lose the same Redis at the same moment."""
    longest = min(HEARTBEAT_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** min(failures, 16))
    return longest * (0.5 + random.random() / 2)


class Link(threading.Thread):
    """Registers, beats every five seconds, and reads the fleet's record at each beat and at each hint.

    :param state: what to register now; asked by this thread.
    :param tell: called with the news, by this thread. :param started: time.monotonic() at the start of the process.
    """

    def __init__(
        self, endpoint: Endpoint, identity: Identity, state: Callable[[], str], tell: Callable[[News], None],
        started: float,
    ) -> None:
        super().__init__(name="link", daemon=True)
        self.registered = threading.Event()
        self.beats = 0
        self.faults = 0
        self.connected = False
        self.withdrawn = False
        self._client = Client(endpoint, identity.connection)
        self._registration = Registration(self._client, identity)
        self._key = identity.fleet + ":release"
        self._state, self._tell, self._born = state, tell, started
        self._wake = threading.Event()
        self._leaving = False
        self._admitted = False
        self._failures = 0
        self._written = ""
        self._beaten = 0.0

    @property
    def age(self) -> Optional[float]:
        """Seconds since Redis last confirmed a heartbeat; None before the first."""
        return time.monotonic() - self._beaten if self.registered.is_set() else None

    @property
    def alive(self) -> bool:
        """Whether the registration can't have expired."""
        return self.age is not None and self.age < TTL_SECONDS

    def ask(self) -> None:
        """Read the record, and write another state, as soon as possible."""
        self._wake.set()

    def leave(self) -> None:
        """Take the registration back, and end."""
        self._leaving = True
        self._wake.set()

    def run(self) -> None:
        """Beat until :meth:`leave`."""
        while not self._leaving:
            self._wake.clear()
            pause = self._round()
            time.sleep(_SPACING_SECONDS)
            self._wake.wait(pause)
        self._withdraw()

    def _round(self) -> float:
        try:
            if not self.registered.is_set():
                self._write(self._registration_announce)
            self._read()
            if self._state() != self._written or self._due() <= 0:
                self._write(self._registration.renew)
        except RedisFault as fault:
            return self._failed(fault)
        self.connected, self._failures = True, 0
        return max(0.0, self._due())

    def _registration_announce(self, state: str) -> None:
        self._registration.announce(state, time.monotonic() - self._born)

    def _due(self) -> float:
        return self._beaten + HEARTBEAT_SECONDS - time.monotonic()

    def _write(self, write: Callable[[str], None]) -> None:
        state, begun = self._state(), time.monotonic()
        write(state)
        # From its beginning: the key's life begins at some time after that.
        self._written, self._beaten = state, begun
        self.beats += 1
        self.registered.set()

    def _read(self) -> None:
        try:
            record = self._client.call("GET", self._key)
        except TooLarge:
            record = b""
        except ReplyError as error:
            if error.code != "WRONGTYPE":
                raise
            record = b""
        self._admitted = True
        # Something else than text is as unreadable as an empty one.
        self._tell(News(record if record is None or isinstance(record, bytes) else b""))

    def _failed(self, fault: RedisFault) -> float:
        self.connected = False
        self.faults += 1
        self._failures += 1
        refused = isinstance(fault, ReplyError) and fault.refused
        self._tell(News(fault=str(fault), refused=refused and not self._admitted))
        return backoff(self._failures)

    def _withdraw(self) -> None:
        for _attempt in range(_WITHDRAWALS if self.registered.is_set() else 0):
            try:
                self._registration.withdraw()
            except RedisFault:
                continue
            self.withdrawn = True
            break
        self._client.close()


class Listener(threading.Thread):
    """Listens on ``<fleet>:release:events``. A message is only a hint: the record itself is read then.

    :param hint: called at each message, and when messages may have been missed.
    :param say: called once, with why there will be no messages.
    """

    def __init__(
        self, endpoint: Endpoint, identity: Identity, hint: Callable[[], None], say: Callable[[str], None],
    ) -> None:
        super().__init__(name="listener", daemon=True)
        self._client = Client(endpoint, identity.connection)
        self._channel = identity.fleet + ":release:events"
        self._hint, self._say = hint, say
        self._failures = 0
        self._said = False

    def run(self) -> None:
        """Listen for as long as the process lives."""
        while True:
            time.sleep(self._listened())

    def _listened(self) -> float:
        try:
            self._client.send("SUBSCRIBE", self._channel)
            self._await()
            self._hint()
            self._failures = 0
            while True:
                self._await()
                self._hint()
        except ReplyError as error:
            self._client.close()
            if error.refused:
                self._without_right(str(error))
                return _WITHOUT_RIGHT_SECONDS
        except RedisFault:
            if not self._failures:
                self._hint()  # the other connection is likely to be gone too
        self._failures += 1
        return backoff(self._failures)

    def _await(self) -> None:
        """Return at the next message. A connection that was cut in silence is found by asking now and then."""
        while True:
            reply = self._client.receive(_IDLE_SECONDS)
            if reply is None:
                self._client.send("PING")
                reply = self._client.receive(_IDLE_SECONDS)
                if reply is None:
                    raise RedisFault("no answer in time")
            if isinstance(reply, list) and reply and reply[0] in (b"message", b"subscribe"):
                return

    def _without_right(self, why: str) -> None:
        if not self._said:
            self._said = True
            self._say(why)
