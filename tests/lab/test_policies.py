# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What three hosts come to when a rollout goes wrong on one of them, by each policy; a good run heals what it left."""

from __future__ import annotations

import json
import re
from typing import Iterator

import pytest
from support.extent import some
from support.redis_server import wait_until

from lab.fleet import LabFleet
from lab.judge import states

pytestmark = pytest.mark.timeout(1800)

# When a release turns out bad, and how long an instance has to be up to count as stable.
WHEN = {"at its start": (0, 2), "after five seconds": (5, 9), "after twelve seconds": (12, 17)}
# Where it is, and the host and the service that are the first to notice.
WHERE: dict[str, tuple[dict[str, str], str, str]] = {
    "in the canary": ({"on": "host1"}, "host1", "alpha"),
    "on one host": ({"on": "host2"}, "host2", "(alpha|beta)"),
    "of one service": ({"of": "beta"}, "host2", "beta"),
    "in the last batch": ({"on": "host3"}, "host3", "beta"),
}
BAD = [f"{where}, {when}" for where in WHERE for when in WHEN]


@pytest.fixture(scope="module")
def rolled(life: LabFleet) -> LabFleet:
    """A fleet that runs a good commit; each host is a batch."""
    life.variables["worker_batches"] = ["1"]
    life.commit(obey=True)
    life.deploy().must_pass()
    return life


@pytest.fixture
def good(rolled: LabFleet) -> str:
    """The commit that the fleet runs, and goes back to."""
    return str(rolled.record()["target"]["sha"])


@pytest.fixture
def settled(life: LabFleet, good: str) -> Iterator[str]:
    """The good commit, which the fleet runs before; afterwards a plain run of it heals whatever is left."""
    yield good
    life.git("checkout", "-q", good)
    life.deploy().must_pass()
    assert life.everywhere() == life.wanted(good)
    assert (life.record()["phase"], life.record()["target"]["sha"]) == ("settled", good)


@pytest.mark.parametrize("name", some(BAD, "in the last batch, after twelve seconds"))
def test_wherever_a_release_is_bad_every_host_is_back_and_proved(life: LabFleet, good: str, name: str) -> None:
    where, when = name.split(", ")
    (place, host, service), (seconds, stabilize) = WHERE[where], WHEN[when]
    before = {one: [found["Id"] for found in life.there(one)] for one in life.placement}
    bad = life.commit(obey=True, crash_after=seconds, **place)
    run = life.deploy("-e", f"worker_stabilize={stabilize}").must_fail(
        "every host that had moved is back on what it ran before, proved")
    told = re.compile(rf"^{host}: roll: service {service} on {host}, .* \| boom; remedy", re.MULTILINE)
    assert told.search(run.output), run.output
    assert life.everywhere() == life.wanted(good)
    assert (life.record()["phase"], life.record()["target"]["sha"]) == ("settled", good)
    evidence = life.evidence()[-1]
    assert (evidence["result"], evidence["published"], evidence["release"]["sha"]) == ("rolled back", False, bad)
    assert set(evidence["hosts"]) == set(life.placement)
    # A bad canary touches nobody else.
    same = [one for one in life.placement if [found["Id"] for found in life.there(one)] == before[one]]
    assert same == {"in the canary": ["host2", "host3"], "on one host": ["host3"]}.get(where, same)
    life.verify("-e", f"worker_expected_sha={good}").must_pass()
    mended = life.commit(obey=True)
    life.deploy().must_pass()
    assert life.everywhere() == life.wanted(mended)


@pytest.mark.long
def test_only_the_host_that_failed_goes_back(life: LabFleet, settled: str) -> None:
    bad = life.commit(obey=True, crash_after=0, on="host2")
    life.deploy("-e", "worker_on_failure=host").must_fail(
        "may be on more than one release: nothing was published", "host1: runs the new release",
        "host3: preflight: not rolled, since another host failed")
    old = life.wanted(settled)
    assert life.everywhere() == {**old, "host1": {"alpha": [bad]}}
    assert {release["sha"] for release in life.record()["allowed"]} == {settled, bad}
    life.verify("-e", f"worker_expected_sha={settled}").must_fail("host1", "STALE")


@pytest.mark.long
def test_published_first_the_old_release_is_fenced_and_comes_back_when_the_new_one_is_bad(
    life: LabFleet, settled: str,
) -> None:
    bad = life.commit(obey=True, crash_after=20, on="host3")
    process = life.start("deploy-workers.yml", "-e", "worker_publish=before", "-e", "worker_stabilize=25")
    wait_until(lambda: states(life, settled, "host3") == {"fenced"}, "the old release to be fenced before it goes", 120)
    assert states(life, settled, "host2") <= {"fenced"}
    assert process.wait(1200) != 0
    assert "back on what it ran before, proved" in life.log.read_text()
    assert life.everywhere() == life.wanted(settled)
    assert published(life)[:3] == [settled, bad, settled]


def test_a_host_that_is_away_is_left_behind_fenced_and_named(life: LabFleet, settled: str) -> None:
    """The first host of the group: another one does what is the whole run's. Its workers still reach Redis."""
    new = life.commit(obey=True)
    life.fault("cut", "host1", ssh_only=True)
    try:
        life.deploy("-e", "worker_unreachable=continue").must_fail(
            "was published, but not every host finished", "host1: begin: ",
            "host1: what runs there on another release is fenced")
        assert (life.record()["phase"], life.record()["target"]["sha"]) == ("settled", new)
        wait_until(lambda: states(life, settled) == {"fenced"}, "the workers that were left behind to be fenced")
        assert states(life, new) == {"running"}
    finally:
        life.fault("mend", "host1")
    assert life.everywhere() == {**life.wanted(new), "host1": {"alpha": [settled]}}
    life.deploy().must_pass()
    assert life.everywhere() == life.wanted(new)


def published(fleet: LabFleet) -> list[str]:
    """The commits that were published, the last one first."""
    entries = [json.loads(text) for text in fleet.redis.client.lrange(f"{fleet.name}:releases", 0, -1)]
    return [entry["sha"] for entry in entries]
