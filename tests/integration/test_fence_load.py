# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release is published while a hundred workers work: no stale worker starts a job after that, and none is lost."""

from __future__ import annotations

import random
import statistics
import time
from typing import Callable, Iterator

import pytest
from support.crew import NEW, OLD, ReleaseRef, Site
from support.extent import some
from support.redis_server import running_redis, wait_until

EACH = 50
JOBS = 5000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A hundred workers, half of them of each release."""
    with running_redis() as redis, running_redis() as sink:
        made = Site(tmp_path_factory.mktemp("site"), redis, sink)
        made.write_host(NEW, OLD)
        made.publish(NEW, OLD)
        for release in (OLD, NEW) * 2:
            made.crew(release, EACH // 2)
        try:
            yield made
        finally:
            made.close()


def tell(site: Site, target: ReleaseRef) -> float:
    return site.publish(target)


def tell_nobody(site: Site, target: ReleaseRef) -> float:
    """As when every message is lost."""
    return site.publish(target, quietly=True)


def restart(site: Site, target: ReleaseRef) -> float:
    at = site.publish(target)
    site.redis.restart()
    return at


def pause(site: Site, target: ReleaseRef) -> float:
    at = site.publish(target)
    site.redis.pause()
    time.sleep(20)
    site.redis.resume()
    return at


def lose(site: Site, target: ReleaseRef) -> float:
    """All data are lost; then the deployer publishes, and who has the jobs' source adds those without an effect."""
    site.redis.restart(lose_data=True)
    at = site.publish(target)
    done = site.effects
    site.add([number for number in range(JOBS) if str(number) not in done])
    return at


def change_the_host(site: Site, target: ReleaseRef) -> float:
    site.write_host(target)
    return time.time()


ROUNDS: list[Callable[[Site, ReleaseRef], float]] = [
    tell, tell_nobody, restart, lose, change_the_host, pause,
    *[tell, tell_nobody, restart, lose, change_the_host] * 2,
    *[tell, tell_nobody, restart, change_the_host],
]


@pytest.mark.parametrize(
    ("number", "disturb"), some(enumerate(ROUNDS), *list(enumerate(ROUNDS))[:6]), ids=[way.__name__ for way in ROUNDS])
def test_published_at_a_random_moment(
    site: Site, number: int, disturb: Callable[[Site, ReleaseRef], float]
) -> None:
    target, other = (NEW, OLD) if number % 2 else (OLD, NEW)
    site.write_host(NEW, OLD)
    site.publish(target, other)
    wait_until(lambda: site.states()["running"] == 2 * EACH, "all workers to run", 60)
    site.forget()
    site.add(range(JOBS))
    random.seed(number)
    moment = random.randrange(JOBS // 2)
    wait_until(lambda: len(site.effects) > moment, f"{moment} jobs to be done", 60)
    at = disturb(site, target)
    wait_until(lambda: site.states(other) == {"fenced": EACH}, "the other release to be fenced", 60)
    wait_until(lambda: len(site.effects) == JOBS, "all jobs to be done", 120)
    late = [start for start in site.starts if start["release"] == other.release_id and start["at"] > at * 1e6]
    assert not late
    if disturb in (tell, tell_nobody, change_the_host):
        # Where Redis is always there a job is given out once; else one whose end Redis didn't confirm may be had again.
        assert set(site.effects.values()) == {1}
    wait_until(lambda: site.states(target) == {"running": EACH}, "the target's workers to be registered as running")


def switch(site: Site, target: ReleaseRef, other: ReleaseRef, quietly: bool) -> list[float]:
    """Publish while idle; seconds that each worker of the other release took to be fenced."""
    site.write_host(NEW, OLD)
    site.publish(target, other)
    wait_until(lambda: site.states()["running"] == 2 * EACH, "all workers to run", 60)
    before = len(site.fenced_at(other))
    at = site.publish(target, quietly=quietly)
    wait_until(lambda: site.states(other) == {"fenced": EACH}, "the other release to be fenced", 60)
    return [moment - at for moment in site.fenced_at(other)[before:]]


@pytest.mark.parametrize("quietly", [False, True])
def test_time_from_publication_to_fenced(
    site: Site, record_property: Callable[[str, object], None], quietly: bool
) -> None:
    """By a message, and without one: then each learns of it at its next heartbeat."""
    turns = [pair for _turn in range(3) for pair in ((NEW, OLD), (OLD, NEW))]
    times = [seconds for pair in turns for seconds in switch(site, *pair, quietly)]
    assert len(times) == 6 * EACH
    record_property("median", round(statistics.median(times), 3))
    record_property("worst", round(max(times), 3))
    print(f"publication to fenced: median {statistics.median(times):.3f} s, worst {max(times):.3f} s of {len(times)}")
