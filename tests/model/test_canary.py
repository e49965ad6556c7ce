# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary comes first, in whatever order hosts answer."""

from __future__ import annotations

from typing import Callable

import pytest
from model.claims import result_of
from model.engine import Badness
from model.fleet import run
from model.interpreter import Chance
from model.world import Model, Release


@pytest.mark.parametrize("chance", [Chance(late, backwards) for late in (True, False) for backwards in (True, False)])
def test_a_bad_release_touches_the_canary_alone(new_model: Callable[..., Model], chance: Chance) -> None:
    model = new_model(3)
    run(model, Release("a"), False)
    before = {host: sorted(engine.containers) for host, engine in model.engines.items()}
    ending = run(model, Release("bad", Badness("crash", 5.0)), False, chance=chance)
    assert ending is not None
    assert result_of(ending) == "rolled back"
    for host in ("h2", "h3"):
        assert sorted(model.engines[host].containers) == before[host], "\n".join(ending.said)
    assert sorted(model.engines["h1"].containers) != before["h1"]
