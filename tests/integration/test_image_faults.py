# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds that fail, are stopped, or find the machine not as they need it: a clear word, and nothing half done."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Iterator
from uuid import uuid4

import pytest
from support.fleet import wait_for
from support.image_app import DOCKERFILE, App

BUILDERS = pytest.mark.parametrize("builder", ["buildx", "classic"])


@pytest.fixture
def app(tmp_path: Path, base_reference: str) -> Iterator[App]:
    made = App(tmp_path, base_reference)
    yield made
    made.close()


def endless(marker: str) -> str:
    """A Dockerfile with a step that doesn't end, told by its command line."""
    return DOCKERFILE + f'RUN ["sleep", "{marker}"]\n'


def running(marker: str) -> list[int]:
    """Processes on this machine, in containers too, with a word in their command line (and no other program's)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", marker.encode()]:
            found.append(int(entry.parent.name))
    return found


def left(app: App) -> list[Any]:
    """What a build may not leave: images, names, files."""
    return [*app.images(), *app.tags(), *app.temporary.iterdir()]


@BUILDERS
def test_the_last_lines_of_a_failing_build(app: App, builder: str) -> None:
    app.commit(DOCKERFILE + "RUN echo the last words; exit 3\n")
    run = app.build(builder=builder).must_fail("build of variant base", "the last words")
    assert "commit it" in run["remedy"]
    assert left(app) == []


def test_a_failing_variant_stops_the_other(app: App) -> None:
    marker = f"600.{uuid4().int % 10**9}"
    app.commit(DOCKERFILE + f'RUN if [ "$FLAVOUR" = bad ]; then exit 3; fi\nRUN ["sleep", "{marker}"]\n')
    before = time.monotonic()
    app.build(variants={"base": {}, "other": {"build_args": {"FLAVOUR": "bad"}}}).must_fail("build of variant other")
    assert time.monotonic() - before < 60
    wait_for(lambda: not running(marker), "the other build to end")
    assert left(app) == []


@BUILDERS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_builds(app: App, builder: str, number: signal.Signals) -> None:
    marker = f"600.{uuid4().int % 10**9}"
    app.commit(endless(marker))
    process = app.start(builder=builder, variants={"base": {}, "other": {"build_args": {"FLAVOUR": "x"}}})
    wait_for(lambda: running(marker), "the build's endless step", 60)
    process.send_signal(number)
    App.result(process).must_fail(f"{number.name} stopped it")
    wait_for(lambda: not running(marker), "the builds to end")
    assert left(app) == []


def test_a_build_that_takes_too_long(app: App) -> None:
    marker = f"600.{uuid4().int % 10**9}"
    app.commit(endless(marker))
    app.build(timeout=8).must_fail("an end within 8 s")
    wait_for(lambda: not running(marker), "the build to end")
    assert left(app) == []


class TestBase:
    def test_a_tag_that_is_not_the_images_id(self, app: App) -> None:
        app.commit()
        wrong = f"driftguard.local/test-{app.fleet}:{'1' * 64}"
        for check in (True, False):
            app.build(check=check, base={"reference": wrong}).must_fail("whose id is its tag; found no such image")
        app.engine.images.get(app.base).tag(*wrong.split(":"))
        for check in (True, False):
            app.build(check=check, base={"reference": wrong}).must_fail(
                f"whose id is its tag; found sha256:{app.base.rpartition(':')[2]}")
        assert app.images() == {}

    def test_a_tag_that_is_moved_during_the_build(self, app: App) -> None:
        marker = f"8.{uuid4().int % 10**9}"
        identity = app.base.rpartition(":")[2]
        name = f"driftguard.local/test-{app.fleet}"
        app.engine.images.get(app.base).tag(name, identity)
        app.commit(DOCKERFILE + f'USER root\nRUN ["sleep", "{marker}"]\n')
        process = app.start(base={"reference": f"{name}:{identity}"})
        wait_for(lambda: running(marker), "the build to be under way", 60)
        moved = app.derive(f"{name}:{identity}", "ENV MOVED=1")
        App.result(process).must_fail("whose id is its tag", moved)
        assert app.images() == {}

    def test_only_check_mode_takes_one_that_is_still_to_be_made(self, app: App) -> None:
        sha = app.commit()
        predicted = app.build(check=True, base={"reference": ""}).must_pass()
        assert predicted["changes"][0] == "build base"
        assert predicted["release"] == {
            "fleet": app.fleet, "release_id": None, "sha": sha, "created": None, "variants": {}}
        app.build(base={"reference": ""}).must_fail("base.reference")

    def test_a_dockerfile_that_does_not_take_it(self, app: App) -> None:
        app.commit(f"FROM {app.base}\nCMD [\"sh\"]\n")
        app.build(base={"reference": app.base}).must_pass()
        app.build(check=True, base=None).must_pass()
        app.commit('FROM scratch\nCMD ["sh"]\n')
        app.build(check=True).must_fail("a FROM that uses ARG BASE_IMAGE")

    def test_a_tag_in_the_dockerfile(self, app: App) -> None:
        app.commit("FROM python:3.11\n")
        for check in (True, False):
            app.build(check=check).must_fail("Dockerfile, line 1", "FROM python:3.11")


class TestSecrets:
    COUNTED = DOCKERFILE + "USER root\nRUN --mount=type=secret,id=token wc -c </run/secrets/token >/size\n"
    SHOWN = DOCKERFILE + "RUN --mount=type=secret,id=token,mode=0444 echo got $(cat /run/secrets/token); exit 1\n"

    @pytest.fixture
    def token(self, tmp_path: Path) -> Path:
        path = tmp_path / "token"
        path.write_text(f"token-{uuid4().hex}\n")
        return path

    def test_it_is_there_for_the_build_and_nowhere_after(self, app: App, token: Path) -> None:
        app.commit(self.COUNTED)
        run = app.build(secrets=[{"id": "token", "src": str(token)}]).must_pass()
        image = run["variants"]["base"]["id"]
        assert app.run(image, "cat", "/size").strip() == str(token.stat().st_size)
        secret = token.read_text().strip()
        assert secret not in run.output
        assert secret not in str(app.engine.images.get(image).history()) + str(app.images())
        assert "token" not in app.run(image, "ls", "/run")

    def test_another_content_is_the_same_release(self, app: App, token: Path) -> None:
        app.commit()
        app.build(secrets=[{"id": "token", "src": str(token)}]).must_pass()
        token.write_text("other\n")
        assert not app.build(secrets=[{"id": "token", "src": str(token)}]).must_pass().changed

    def test_what_a_failing_build_prints_of_it_is_masked(self, app: App, token: Path) -> None:
        app.commit(self.SHOWN)
        run = app.build(secrets=[{"id": "token", "src": str(token)}]).must_fail("got ********")
        assert token.read_text().strip() not in run.output

    def test_a_file_that_is_not_there(self, app: App) -> None:
        app.commit()
        for check in (True, False):
            app.build(check=check, secrets=[{"id": "token", "src": "/nope"}]).must_fail("secret token", "/nope")

    def test_the_classic_builder_has_none(self, app: App, token: Path) -> None:
        app.commit()
        app.build(builder="classic", secrets=[{"id": "token", "src": str(token)}]).must_fail("docker-buildx")


class TestBuilders:
    def test_both_make_the_same_release(self, app: App) -> None:
        app.commit()
        classic = app.build(builder="classic", variants={"base": {}, "other": {"target": None}}).must_pass()
        assert classic["builder"] == "classic"
        member, _content = app.file(classic["variants"]["other"]["id"], "/etc/driftguard/image.json")
        assert (member.mode & 0o7777, member.uid, member.gid) == (0o444, 0, 0)
        config = app.engine.images.get(classic["variants"]["base"]["id"]).attrs["Config"]
        assert (config["User"], config["Entrypoint"], config["Cmd"]) == (
            "10077:10088", ["python3", "-S"], ["/app/worker.py"])
        again = app.build(builder="buildx", variants={"base": {}, "other": {}}).must_pass()
        assert (again.changed, again["release"]) == (False, classic["release"])

    @pytest.fixture
    def without_docker(self, app: App, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").symlink_to(str(shutil.which("git")))
        app.environment["PATH"] = str(tmp_path / "bin")

    def test_auto_does_without_buildx(self, app: App, without_docker: None) -> None:
        app.commit()
        assert app.build().must_pass()["builder"] == "classic"

    def test_buildx_that_is_not_there(self, app: App, without_docker: None) -> None:
        app.commit()
        app.build(builder="buildx").must_fail("docker buildx on this host")

    def test_another_builder_or_context_of_the_user_does_not_matter(self, app: App) -> None:
        app.environment.update(BUILDX_BUILDER="somewhere-else", DOCKER_CONTEXT="default", BUILDX_NO_DEFAULT_LOAD="1")
        app.commit()
        app.build().must_pass()


class TestMachine:
    def test_no_engine(self, app: App) -> None:
        app.commit()
        app.environment["DOCKER_HOST"] = f"unix://{app.temporary}/nope.sock"
        for check in (True, False):
            app.build(check=check).must_fail("Docker Engine", "start the engine")

    def test_no_room_for_the_commits_files(self, app: App) -> None:
        app.commit(large="x" * 3_000_000)
        app.prefix = ["prlimit", "--fsize=1000000"]
        app.build().must_fail("files that git can read", "free disk space")
        assert left(app) == []

    def test_no_place_for_temporary_files(self, app: App) -> None:
        app.commit()
        app.temporary.rmdir()
        app.build().must_fail(str(app.temporary), "free disk space")
        app.temporary.mkdir()


def test_a_temporary_tag_that_a_killed_run_left_is_swept(app: App) -> None:
    old = f"driftguard.local/build:{app.fleet}-base-{int(time.time()) - 90_000}-0123456789ab"
    young = f"driftguard.local/build:{app.fleet}-base-{int(time.time()) - 3_000}-0123456789ab"
    for tag in (old, young):
        app.engine.images.get(app.base).tag(*tag.split(":"))
    app.commit()
    app.build().must_pass()
    assert [tag for tag in app.tags() if "local/build" in tag] == [young]


def test_the_user_may_be_another_than_the_checkouts(app: App) -> None:
    """Only root can be another user here; for others this is the ordinary case again."""
    app.commit()
    if os.geteuid() == 0:
        for path in [app.path, *app.path.rglob("*")]:
            os.chown(path, 12345, 12345, follow_symlinks=False)
    app.build().must_pass()
