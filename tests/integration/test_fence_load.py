# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release is published while workers work: none of the old release starts a job after that, and none is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from support.crew import NEW, OLD, Site
from support.redis_server import running_redis, wait_until


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_redis() as redis, running_redis() as sink:
        made = Site(tmp_path, redis, sink)
        try:
            yield made
        finally:
            made.close()


def test_it_works(site: Site) -> None:
    site.write_host(NEW, OLD)
    site.publish(NEW, OLD)
    site.add(range(1000))
    site.crew(OLD, 5)
    site.crew(NEW, 5)
    wait_until(lambda: len(site.effects) > 300, "jobs to be done", 30)
    at = site.publish(NEW)
    wait_until(lambda: site.states(OLD) == ["fenced"] * 5, "old workers to be fenced", 30)
    wait_until(lambda: len(site.effects) == 1000, "all jobs to be done", 60)
    late = [start for start in site.starts if start["release"] == OLD.release_id and start["at"] > at * 1e6]
    assert not late
    assert set(site.effects.values()) == {1}
