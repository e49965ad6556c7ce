# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States and moves."""

from __future__ import annotations

import pytest

from driftguard_worker.lifecycle import Lifecycle, State

ALLOWED = {
    (State.STARTING, State.RUNNING),
    (State.STARTING, State.DRAINING),
    (State.RUNNING, State.DRAINING),
    (State.STARTING, State.FENCED),
    (State.RUNNING, State.FENCED),
    (State.DRAINING, State.FENCED),
    (State.DRAINING, State.RUNNING),
    (State.FENCED, State.RUNNING),
    (State.FENCED, State.DRAINING),
}


def in_state(state: State) -> Lifecycle:
    lifecycle = Lifecycle()
    if state is not State.STARTING:
        lifecycle.move(state)
    return lifecycle


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_moves(before: State, after: State) -> None:
    lifecycle = in_state(before)
    heard: list[State] = []
    lifecycle.listen(heard.append)
    if (before, after) in ALLOWED:
        lifecycle.move(after)
        assert (lifecycle.state, heard) == (after, [after])
    else:
        with pytest.raises(ValueError, match=f"from {before.value} to {after.value}"):
            lifecycle.move(after)
        assert (lifecycle.state, heard) == (before, [])


def test_listeners_in_order_with_the_state_already_changed() -> None:
    lifecycle = Lifecycle()
    heard: list[tuple[int, State]] = []
    lifecycle.listen(lambda _state: heard.append((1, lifecycle.state)))
    lifecycle.listen(lambda _state: heard.append((2, lifecycle.state)))
    lifecycle.move(State.RUNNING)
    assert heard == [(1, State.RUNNING), (2, State.RUNNING)]
