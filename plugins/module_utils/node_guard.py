# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Node guard in a command: where it belongs, and whether it is there. Pure; the renderer and the proof share it."""

from __future__ import annotations

from typing import Optional, Sequence

from .errors import DriftguardError
from .names import GUARD_MOUNT

REQUIRE = ("--require", f"{GUARD_MOUNT}/version-guard.cjs")
# Programs that become the command behind them, with nothing in between.
_BECOMES = (("docker-entrypoint.sh",), ("tini", "--"), ("tini",), ("dumb-init", "--"), ("dumb-init",))


def with_node_guard(subject: str, command: Sequence[str]) -> list[str]:
    """A command whose Node loads the guard before anything else.

    :param subject: the service, for the message.
    :param command: the image's ENTRYPOINT and the service's command or the image's CMD.
    :raises DriftguardError: it isn't Node that it starts.
    """
    place = _node(command)
    if place is None:
        raise DriftguardError(
            f"{subject}, key guard", "a command that is node itself, since guard is node",
            f"{command[0] if command else 'nothing'!s}"[:80],
            "name the built program as command, for example [node, dist/worker.js], or drop guard: node; what a script "
            "(npm start, sh -c) starts can't be guarded from here")
    return [*command[:place + 1], *REQUIRE, *command[place + 1:]]


def has_node_guard(command: Sequence[str]) -> bool:
    """Whether a command is one that :func:`with_node_guard` made."""
    place = _node(command)
    return place is not None and tuple(command[place + 1:place + 1 + len(REQUIRE)]) == REQUIRE


def _node(command: Sequence[str]) -> Optional[int]:
    """Where in a command its Node is; None where it isn't Node that is started."""
    names = tuple(word.rpartition("/")[2] for word in command[:3])
    starts = [len(words) for words in _BECOMES if names[:len(words)] == words]
    place = starts[0] if starts else 0
    return place if names[place:place + 1] in (("node",), ("nodejs",)) else None
