# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service of which there is one in the whole fleet, also while it moves from one host to another."""

from __future__ import annotations

from typing import Any

import pytest
from model import world
from model.making import NewModel
from model.test_parts import went
from model.world import ALL_SERVICES, Model, Release

A = Release("a")


@pytest.fixture
def moved(new_model: NewModel, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A fleet whose singleton runs on its last host, and is placed on its first from now on."""
    monkeypatch.setitem(world.SERVICES, "cron", {"memory": "64M", "singleton": True})
    model = new_model(3)
    model.placement["h3"] = (*ALL_SERVICES, "cron")
    assert went(model, A).status == 0
    model.placement.update(h1=(*ALL_SERVICES, "cron"), h3=ALL_SERVICES)
    return model


def stop(model: Model) -> None:
    """What somebody does on the host."""
    engine = model.engines["h3"]
    cron = next(one for one in engine.containers.values() if one.service == "cron")
    del engine.containers[cron.id]
    model.workers.left(cron.id)


@pytest.mark.parametrize("more", [{}, {"limit": ("h1",)}])
def test_it_is_never_on_two_hosts(moved: Model, more: dict[str, Any]) -> None:
    before = moved.picture()["containers"]
    ending = went(moved, A, worker_prune="true", **more)
    said = "\n".join(ending.said)
    assert moved.picture()["containers"] == before, said
    assert "service cron" in said
    assert "found h3: " in said
    assert "docker compose -p demo-workers rm --stop --force cron" in said
    stop(moved)
    assert went(moved, A, worker_prune="true").status == 0
