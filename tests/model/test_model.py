# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts × releases × faults, in any order: what a deploy says is so, and a plain run afterwards always converges.

``DRIFTGUARD_MODEL_EXAMPLES=2000`` (make model) goes deeper. What fails is printed as the calls that lead there.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Optional

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from model.claims import Before, check_run, is_on, plan_of
from model.engine import Badness
from model.interpreter import Chance, Ending
from model.world import Fault, Model, Release

EXAMPLES = int(os.environ.get("DRIFTGUARD_MODEL_EXAMPLES", "60"))
HOSTS = ("h1", "h2", "h3")
LAST_STEP = 200
COUNT = {"runs": 0, "steps": 0, "examples": 0}

badness = st.one_of(
    st.builds(Badness, kind=st.just("crash"), after=st.sampled_from((0.0, 5.0, 12.0)),
              service=st.sampled_from(("", "ocr")), host=st.sampled_from(("", *HOSTS))),
    st.builds(Badness, kind=st.sampled_from(("unhealthy", "silent", "liar")),
              service=st.sampled_from(("", "extractor")), host=st.sampled_from(("", *HOSTS))))
good = st.builds(Release, st.sampled_from(("a", "b", "c")))
any_release = st.one_of(good, st.builds(
    lambda name, what: Release(f"{name} {what}", what), st.sampled_from(("x", "y")), badness))
fault = st.one_of(
    st.builds(Fault, st.sampled_from(("cut", "mend", "engine", "revive")), st.integers(0, LAST_STEP),
              st.sampled_from(HOSTS)),
    st.builds(Fault, st.sampled_from(("kill in", "engine in")), st.integers(1, 120), st.sampled_from(HOSTS)),
    st.builds(Fault, st.sampled_from(("kill", "empty")), st.integers(0, LAST_STEP)),
    st.builds(Fault, st.just("redis"), st.integers(1, 60), more=st.sampled_from((1, 3, 10, 500))))
faults = st.lists(fault, max_size=3).map(tuple)
chance = st.builds(Chance, st.booleans(), st.booleans())


class Fleet(RuleBasedStateMachine):
    """A fleet, and all that may befall it."""

    new_model: Callable[..., Model]

    @initialize(hosts=st.integers(1, 3))
    def begin(self, hosts: int) -> None:
        self.model = type(self).new_model(hosts)
        COUNT["examples"] += 1

    def run(self, release: Optional[Release], *, partly: bool = False, **options: Any) -> Optional[Ending]:
        before = Before.of(self.model)
        ending = self.model.run(release, **options)
        COUNT["runs"] += 1
        COUNT["steps"] += ending.steps if ending else 0
        check_run(self.model, before, ending, release if options.get("playbook") is None else None, partly)
        return ending

    @rule(release=any_release, faults=faults, chance=chance)
    def deploy(self, release: Release, faults: tuple[Fault, ...], chance: Chance) -> None:
        self.run(release, faults=faults, chance=chance)

    @rule(faults=faults, chance=chance)
    def rollback(self, faults: tuple[Fault, ...], chance: Chance) -> None:
        self.run(None, faults=faults, chance=chance, playbook="rollback")

    @rule(release=any_release, host=st.sampled_from(HOSTS), chance=chance)
    def limited(self, release: Release, host: str, chance: Chance) -> None:
        if host in self.model.placement:
            self.run(release, limit=(host,), chance=chance, partly=len(self.model.placement) > 1)

    @rule(release=good, memory=st.sampled_from(("64M", "128M")))
    def predicted(self, release: Release, memory: str) -> None:
        """A check-mode run changes nothing, and what it says is what the next run does."""
        self.model.memory = memory
        before = self.model.picture()
        check = self.model.run(release, check_mode=True)
        assert check is not None
        assert self.model.picture() == before, "a check-mode run changed something"
        ending = self.run(release)
        assert ending is not None
        if ending.status == 0:
            assert check.status == 0, "a run went well whose check had failed:\n" + "\n".join(check.said)
            assert plan_of(check) == plan_of(ending), "a check-mode run said something else than was done then"

    @rule(late=any_release, early=any_release, at=st.integers(0, LAST_STEP), lease_ends=st.booleans(), chance=chance)
    def overlapping(self, late: Release, early: Release, at: int, lease_ends: bool, chance: Chance) -> None:
        """A run is suspended; another one runs whole, if it gets the lease; then the first goes on."""

        def other() -> None:
            if lease_ends:
                self.model.redis.delete("demo:lock:deploy")
            source = self.model.source
            self.run(late)
            self.model.source = source

        before = Before.of(self.model)
        ending = self.model.run(early, faults=(Fault("other", at),), others=(other,), chance=chance)
        if ending is not None and ending.status == 0:
            check_run(self.model, before, ending, early, partly=False)

    @rule()
    def forget(self) -> None:
        self.model.empty_redis()

    @rule(host=st.sampled_from(HOSTS))
    def repaired(self, host: str) -> None:
        self.model.repair()

    @rule(host=st.sampled_from(("h3", "h4")))
    def add(self, host: str) -> None:
        self.model.add_host(host)

    @precondition(lambda self: len(self.model.placement) > 1)
    @rule(host=st.sampled_from(HOSTS))
    def remove(self, host: str) -> None:
        if host in self.model.placement:
            self.model.remove_host(host)

    def teardown(self) -> None:
        """Whatever happened: once everything is back, a plain run converges, and the next changes nothing."""
        if not hasattr(self, "model"):
            return
        self.model.repair()
        last = Release("last")
        ending = self.run(last)
        assert ending is not None
        assert ending.status == 0, "a plain run doesn't converge:\n" + "\n".join(ending.said)
        ending = self.run(last)
        assert ending is not None
        assert (ending.status, ending.changed) == (0, 0), "it changes something again:\n" + "\n".join(ending.said)
        assert not is_on(self.model, last.release_id)


def test_a_deploy_is_true_to_the_world(new_model: Callable[..., Model], capsys: pytest.CaptureFixture[str]) -> None:
    Fleet.new_model = staticmethod(new_model)
    run_state_machine_as_test(Fleet, settings=settings(  # type: ignore[no-untyped-call]
        max_examples=EXAMPLES, stateful_step_count=4, deadline=None, derandomize=True, database=None,
        print_blob=True, suppress_health_check=list(HealthCheck)))
    with capsys.disabled():
        print(f"\nmodel: {COUNT['examples']} fleets, {COUNT['runs']} runs, {COUNT['steps']} tasks of hosts")
    assert COUNT["runs"] >= 2 * EXAMPLES
