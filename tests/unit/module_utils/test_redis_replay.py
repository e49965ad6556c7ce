# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ACL GETUSER says of a user, in the shapes of Redis 6 and 7."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.redis_replay import may_write_everything


def rules(commands: str, keys: Any) -> list[Any]:
    """An answer."""
    return ["flags", ["off"], "passwords", [], "commands", commands, "keys", keys, "channels", "", "selectors", []]


@pytest.mark.parametrize(("commands", "keys", "may"), [
    ("+@all", "~*", True),
    ("+@all", "~* ~other:*", True),
    ("+@all", ["*"], True),
    ("-@all", "", False),
    ("-@all", [], False),
    ("+@all", "", False),
    ("+@all", "~demo:*", False),
    ("+@all", "%R~*", False),
    ("-@all +get", "~*", False),
    ("+@all -flushall -@admin", "~*", True),
    ("+@all -hset", "~*", False),
    ("+@all -@write +get", "~*", False),
])
def test_a_user_that_may_write_everything(commands: str, keys: Any, may: bool) -> None:
    assert may_write_everything(rules(commands, keys)) is may


def test_an_answer_of_another_shape_allows_nothing() -> None:
    assert not may_write_everything([])
