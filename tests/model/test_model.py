# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts, releases and faults in any order: what a deploy says is so, and a plain run afterwards always converges.

``DRIFTGUARD_MODEL_EXAMPLES=5000`` goes deeper, and on other ways each time. A script that fails is printed;
``test_replay.py`` keeps those that did.
"""

from __future__ import annotations

import os
from typing import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from model.engine import Badness
from model.fleet import (
    COUNT,
    AddHost,
    Check,
    Deed,
    Deploy,
    ForgetRedis,
    Overlap,
    Policy,
    RemoveHost,
    Repair,
    Rollback,
    Verify,
    play,
)
from model.interpreter import Chance
from model.world import Fault, Model, Release

EXAMPLES = int(os.environ.get("DRIFTGUARD_MODEL_EXAMPLES", "100"))
IS_DEEP = "DRIFTGUARD_MODEL_EXAMPLES" in os.environ
HOSTS = ("h1", "h2", "h3")
LAST_STEP = 250

hosts = st.sampled_from(HOSTS)
badness = st.one_of(
    st.builds(Badness, kind=st.just("crash"), after=st.sampled_from((0.0, 5.0, 12.0)),
              service=st.sampled_from(("", "ocr")), host=st.sampled_from(("", *HOSTS))),
    st.builds(Badness, kind=st.sampled_from(("unhealthy", "silent", "liar")),
              service=st.sampled_from(("", "extractor")), host=st.sampled_from(("", *HOSTS))))
good = st.builds(Release, st.sampled_from(("a", "b", "c")))
bad = badness.map(lambda what: Release(f"bad {what}", what))
releases = st.one_of(good, bad)
steps = st.integers(0, LAST_STEP)
fault = st.one_of(
    st.builds(Fault, st.sampled_from(("cut", "engine")), steps, hosts),
    st.builds(Fault, st.sampled_from(("mend", "revive")), steps, hosts),
    st.builds(Fault, st.sampled_from(("kill in", "engine in")), st.integers(1, 120), hosts),
    st.builds(Fault, st.sampled_from(("kill", "empty")), steps),
    st.builds(Fault, st.just("redis"), st.integers(1, 60), more=st.sampled_from((1, 3, 10, 500))))
# A connection that breaks for one task or a few.
flaky = st.builds(
    lambda at, host, more: (Fault("cut", at, host), Fault("mend", at + more, host)), steps, hosts, st.integers(1, 9))
faults = st.one_of(st.just(()), flaky, st.lists(fault, min_size=1, max_size=3).map(tuple))
chance = st.builds(Chance, st.booleans(), st.booleans())
policies = st.builds(
    Policy, st.sampled_from(("fleet", "host", "stop")), st.sampled_from(("after", "before")),
    st.sampled_from(("fail", "continue")))
deeds: st.SearchStrategy[Deed] = st.one_of(
    st.builds(Deploy, releases, faults, chance),
    st.builds(Deploy, releases, faults, chance, policy=policies),
    st.builds(Deploy, bad, st.just(()), chance),
    st.builds(Deploy, releases, st.just(()), chance, hosts),
    st.builds(Rollback, faults, chance),
    st.builds(Check, releases, st.sampled_from(("64M", "128M"))),
    st.builds(Overlap, good, releases, steps, st.booleans(), chance, st.booleans()),
    st.just(Verify()),
    st.just(ForgetRedis()),
    st.just(Repair()),
    st.builds(AddHost, st.sampled_from(("h3", "h4"))),
    st.builds(RemoveHost, hosts))
scripts = st.tuples(
    st.builds(Deploy, good), st.lists(deeds, min_size=1, max_size=5)).map(lambda two: (two[0], *two[1]))

NewModel = Callable[..., Model]


def test_what_a_deploy_says_is_so(new_model: NewModel, capsys: pytest.CaptureFixture[str]) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=not IS_DEEP, database=None, print_blob=True,
        phases=[Phase.generate, Phase.shrink] if IS_DEEP else [Phase.generate],
        suppress_health_check=list(HealthCheck))
    @given(number=st.integers(1, 3), order=st.sampled_from(("stop-first", "start-first")), script=scripts,
           last=st.sampled_from(("a", "last")))
    def befall(number: int, order: str, script: tuple[Deed, ...], last: str) -> None:
        model = new_model(number)
        model.order = order
        play(model, script, Release(last))

    COUNT.clear()
    befall()
    with capsys.disabled():
        print("\nmodel: " + ", ".join(f"{number} {name}" for name, number in sorted(COUNT.items())))
    assert COUNT["runs"] > 4 * EXAMPLES
    assert COUNT["steps"] > 200 * EXAMPLES
