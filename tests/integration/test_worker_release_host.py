# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_release on a host: its files, damage, and other runs on it."""

from __future__ import annotations

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.record import render_env, render_json, settled
from support.record_places import Place
from support.releases import release

A, B, C = (release(letter).as_result() for letter in "abc")


# a host


def test_a_host_s_files_are_what_the_guards_read(on_host: Place) -> None:
    on_host.run("settled", A, generation=3).must_pass()
    record = settled(None, "demo", release("a"), 3)
    guard = on_host.root / "demo" / "guard"
    assert {path.name: path.read_text() for path in guard.iterdir()} == {
        "guard.json": render_json(record),
        "guard.env": render_env(record),
    }
    assert (on_host.root / "demo" / "state" / "fence").read_text() == "3 \n"


def test_a_no_op_still_keeps_earlier_deploys_out(on_host: Place) -> None:
    on_host.run("settled", A, generation=3, run="first").must_pass()
    assert not on_host.run("settled", A, generation=5, run="second").must_pass().changed
    on_host.run("settled", B, generation=4, run="third").must_fail("number 5 was there")


def test_another_deploy_with_the_same_number_is_refused(on_host: Place) -> None:
    on_host.run("settled", A, generation=3, run="first").must_pass()
    on_host.run("settled", B, generation=3, run="second").must_fail("first's")


@pytest.mark.parametrize(
    "damage", ["", "{", "\0", render_json(settled(None, "demo", release("c"), 1)).replace("demo", "x1")]
)
def test_a_damaged_record_is_reported_and_mended(on_host: Place, damage: str) -> None:
    on_host.run("settled", A, generation=1)
    path = on_host.root / "demo" / "guard" / "guard.json"
    path.write_text(damage)
    found = on_host.run().must_pass()
    assert (found.changed, found["record"]) == (False, None)
    assert "guard.json" in found["problem"]
    assert path.read_text() == damage
    mended = on_host.run("settled", A, generation=2).must_pass()
    assert mended.changed
    assert "guard.json" in mended["problem"]
    assert not on_host.run("settled", A, generation=2).must_pass().changed
    assert on_host.run()["problem"] == ""


def test_files_that_disagree_are_mended_although_the_record_stays(on_host: Place) -> None:
    on_host.run("settled", A, generation=1)
    env = on_host.root / "demo" / "guard" / "guard.env"
    before = env.read_text()
    env.write_text(before.replace("a", "b"))
    assert "guard.env" in on_host.run().must_pass()["problem"]
    for check in (True, False):
        run = on_host.run("settled", A, generation=2, check=check).must_pass()
        assert (run.changed, run["record"]["generation"]) == (True, 1)
    assert env.read_text() == before
    assert not on_host.run("settled", A, generation=2).must_pass().changed


def test_a_host_that_another_run_works_on_is_waited_for_and_its_holder_named(on_host: Place) -> None:
    with HostRecords(on_host.root, "demo").lock("the other run", 0):
        on_host.run("settled", A, generation=1, lock_wait=0.2).must_fail("run the other run", "within 0.2 s")
    on_host.run("settled", A, generation=1, lock_wait=0.2).must_pass()


def test_a_root_that_cannot_be_written(on_host: Place) -> None:
    (on_host.root / "demo").write_text("a file where the directory should be")
    on_host.run("settled", A, generation=1).must_fail(str(on_host.root / "demo"))


def test_a_host_needs_no_redis_library(on_host: Place) -> None:
    """The module is sent to hosts that reach no Redis and have no library for it."""
    run = on_host.run("settled", A, generation=1)
    assert not run.must_pass()["invocation"]["module_args"]["redis_url"]
