# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The states of a worker and the moves between them."""

from __future__ import annotations

from enum import Enum
from typing import Callable

__all__ = ["Lifecycle", "State"]


class State(str, Enum):
    """What a worker says of itself in its registration and on ``/health``."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    FENCED = "fenced"


_MOVES: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.RUNNING, State.DRAINING, State.FENCED}),
    State.RUNNING: frozenset({State.DRAINING, State.FENCED}),
    # By the fence or by a signal; only the fence's is ever left again.
    State.DRAINING: frozenset({State.FENCED, State.RUNNING}),
    State.FENCED: frozenset({State.RUNNING, State.DRAINING}),
}


class Lifecycle:
    """Holds the state; the registration, ``/health`` and the metrics follow it as listeners."""

    def __init__(self) -> None:
        self._state = State.STARTING
        self._listeners: list[Callable[[State], None]] = []

    @property
    def state(self) -> State:
        """The present state."""
        return self._state

    def listen(self, listener: Callable[[State], None]) -> None:
        """Call ``listener`` with the new state after each move, in the order of subscription."""
        self._listeners.append(listener)

    def move(self, to: State) -> None:
        """Move to another state.

        :raises ValueError: the move is not one of the table; that is a mistake in the program.
        """
        if to not in _MOVES[self._state]:
            raise ValueError(f"a worker can't move from {self._state.value} to {to.value}")
        self._state = to
        for listener in self._listeners:
            listener(to)
