# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_image on the real engine: what is built, what is stamped on it, and that the second run does nothing."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from support.image_app import DOCKERFILE, App, recorded_engine

TWO: dict[str, Any] = {
    "base": {"build_args": {"FLAVOUR": "plain"}}, "other": {"build_args": {"FLAVOUR": "strange"}}}


@pytest.fixture
def app(tmp_path: Path, base_reference: str) -> Iterator[App]:
    made = App(tmp_path, base_reference)
    yield made
    made.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, base_reference: str) -> Iterator[App]:
    """An application whose two variants are built; tests leave it as they found it."""
    made = App(tmp_path_factory.mktemp("built"), base_reference)
    try:
        made.commit()
        made.build(variants=TWO).must_pass()
        yield made
    finally:
        made.close()


class TestStamp:
    def test_the_file_in_the_image(self, built: App) -> None:
        release = built.build(variants=TWO).must_pass()["release"]
        image = release["variants"]["other"]
        member, content = built.file(image["id"], "/etc/driftguard/image.json")
        assert (member.mode & 0o7777, member.uid, member.gid) == (0o444, 0, 0)
        assert json.loads(content) == {
            "schema": "1", "fleet": built.fleet, "variant": "other", "release": release["release_id"],
            "revision": release["sha"], "created": release["created"], "baseName": "driftguard.local/base",
            "baseDigest": "sha256:" + built.base.rpartition(":")[2]}
        directory, _nothing = built.file(image["id"], "/etc/driftguard")
        assert (directory.mode & 0o777, directory.uid) == (0o755, 0)

    def test_labels_and_environment_say_the_same(self, built: App) -> None:
        release = built.build(variants=TWO).must_pass()["release"]
        image = built.engine.images.get(release["variants"]["base"]["id"])
        kept = {name: value for name, value in image.labels.items() if name != "io.driftguard.probe"}
        expected = {
            "org.opencontainers.image.revision": release["sha"], "org.opencontainers.image.created": release["created"],
            "org.opencontainers.image.base.name": "driftguard.local/base",
            "org.opencontainers.image.base.digest": "sha256:" + built.base.rpartition(":")[2],
            "io.driftguard.fleet": built.fleet, "io.driftguard.variant": "base",
            "io.driftguard.release": release["release_id"]}
        assert expected.items() <= kept.items()
        environment = dict(entry.split("=", 1) for entry in image.attrs["Config"]["Env"])
        assert (environment["GIT_SHA"], environment["BUILD_DATE"]) == (release["sha"], release["created"])

    def test_the_stamp_leaves_the_image_alone(self, built: App) -> None:
        image = built.build(variants=TWO).must_pass()["release"]["variants"]["base"]
        config = built.engine.images.get(image["id"]).attrs["Config"]
        assert (config["User"], config["WorkingDir"]) == ("10077:10088", "/app")
        assert (config["Entrypoint"], config["Cmd"]) == (["python3", "-S"], ["/app/worker.py"])

    def test_what_is_returned_is_what_the_image_is(self, built: App) -> None:
        result = built.build(variants=TWO).must_pass()
        image = result["variants"]["base"]
        attributes = built.engine.images.get(image["id"]).attrs
        assert image["image"] == image["id"] == attributes["Id"]
        assert image["size"] == attributes["Size"]
        assert (image["entrypoint"], image["cmd"]) == (["python3", "-S"], ["/app/worker.py"])
        assert image["working_dir"] == "/app"
        assert (image["uid"], image["gid"]) == (10077, 10088)
        assert (image["guard"], image["guard_program"]) == ("python", "/usr/bin/python3")
        assert {"GIT_SHA", "BUILD_DATE", "PATH"} <= set(image["env"])
        assert (image["volumes"], image["healthcheck"], image["digest"]) == ([], False, None)
        assert result["short_sha"] == result["sha"][:7]

    def test_the_build_knows_its_commit_and_its_arguments(self, built: App) -> None:
        result = built.build(variants=TWO).must_pass()
        said = {name: built.run(row["id"], "cat", "/flavour") for name, row in result["variants"].items()}
        assert said == {"base": f"plain {result['sha']}\n", "other": f"strange {result['sha']}\n"}

    def test_tags_are_the_full_and_the_short_sha(self, built: App) -> None:
        result = built.build(variants=TWO).must_pass()
        sha, names = result["sha"], {"base": f"{built.fleet}-worker", "other": f"{built.fleet}-worker-other"}
        assert built.tags() == {
            f"{name}:{tag}": result["variants"][variant]["id"]
            for variant, name in names.items() for tag in (sha, sha[:7])}


def unbuilt(_app: App) -> None:
    """Nothing is there."""


def next_commit(app: App) -> None:
    app.build(variants=TWO).must_pass()
    app.commit()


def another_argument(app: App) -> None:
    app.build(variants={**TWO, "base": {"build_args": {"FLAVOUR": "old"}}}).must_pass()


def variant_gone(app: App) -> None:
    image = app.build(variants=TWO).must_pass()["variants"]["other"]["id"]
    app.engine.images.remove(image, force=True)


def tag_gone(app: App) -> None:
    app.engine.images.remove(app.build(variants=TWO).must_pass()["variants"]["base"]["tags"][1])


def all_tags_gone(app: App) -> None:
    # Held by a tag of another name: an engine deletes an image with its last one.
    image = app.build(variants=TWO).must_pass()["variants"]["base"]
    app.engine.images.get(image["id"]).tag(f"driftguard.local/test-{app.fleet}", "kept")
    for tag in image["tags"]:
        app.engine.images.remove(tag)


def tag_moved(app: App) -> None:
    tag = app.build(variants=TWO).must_pass()["variants"]["base"]["tags"][0]
    app.engine.images.get(app.base).tag(*tag.split(":"))


TRANSITIONS: dict[Callable[[App], None], list[str]] = {
    unbuilt: ["build base", "tag W:S", "tag W:s", "build other", "tag W-other:S", "tag W-other:s"],
    next_commit: ["build base", "tag W:S", "tag W:s", "build other", "tag W-other:S", "tag W-other:s"],
    another_argument: ["build base", "tag W:S", "tag W:s", "build other", "tag W-other:S", "tag W-other:s"],
    variant_gone: ["build other", "tag W-other:S", "tag W-other:s"],
    tag_gone: ["tag W:s"], all_tags_gone: ["tag W:S", "tag W:s"], tag_moved: ["tag W:S"],
}


@pytest.mark.parametrize(("before", "changes"), TRANSITIONS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_check_run_check_run(app: App, before: Callable[[App], None], changes: list[str]) -> None:
    app.commit()
    before(app)
    predicted = app.build(check=True, variants=TWO).must_pass()
    done = app.build(variants=TWO).must_pass()
    idle = [app.build(check=check, variants=TWO).must_pass() for check in (True, False)]

    def named(change: str) -> str:
        text = re.sub(r":s$", f":{done['sha'][:7]}", change).replace(":S", f":{done['sha']}")
        return text.replace("W", f"{app.fleet}-worker")

    assert done["changes"] == [named(change) for change in changes]
    for key in ("changed", "changes", "changed_variants", "release_id", "sha", "uncommitted"):
        assert predicted[key] == done[key], key
    assert predicted["diff"]["before"] == done["diff"]["before"]
    for name, row in predicted["variants"].items():
        assert row["tags"] == done["variants"][name]["tags"]
        assert not row["built"] or row["id"] == done["variants"][name]["id"]
        assert row["built"] == (f"build {name}" not in done["changes"])
    assert (predicted["release"] == done["release"]) == all(row["built"] for row in predicted["variants"].values())
    for run in idle:
        assert (run.changed, run["changes"], run["release"]) == (False, [], done["release"])
        assert "diff" not in run.result


def test_a_half_built_release_gets_only_what_is_missing(app: App) -> None:
    app.commit()
    first = app.build(variants=TWO).must_pass()
    app.engine.images.remove(first["variants"]["other"]["id"], force=True)
    second = app.build(variants=TWO).must_pass()
    assert second["changed_variants"] == ["other"]
    assert second["release_id"] == first["release_id"]
    assert second["variants"]["base"] == first["variants"]["base"]
    assert second["release"]["created"] == first["release"]["created"]
    assert set(second["durations"]) == {"total", "other"}


def test_check_mode_only_asks(app: App, tmp_path: Path) -> None:
    app.commit()
    with recorded_engine(tmp_path) as (address, requests):
        app.environment["DOCKER_HOST"] = address
        app.build(check=True, variants=TWO).must_pass()
        asked = list(requests)
        app.build(variants=TWO).must_pass()
        assert any(request.startswith("POST") for request in requests)  # the record does see what changes something
        requests.clear()
        app.build(check=True, variants=TWO).must_pass()
        app.build(variants=TWO).must_pass()
    assert asked
    assert {request.split()[0] for request in [*asked, *requests]} <= {"GET", "HEAD"}


class TestCommit:
    def test_the_working_tree_is_announced_and_left_out(self, app: App) -> None:
        sha = app.commit(behaviour="committed")
        (app.path / "behaviour").write_text("uncommitted")
        (app.path / "new").write_text("x")
        run = app.build()
        assert run["uncommitted"] == ["behaviour", "new"]
        warning = json.dumps(run["warnings"])
        assert "behaviour, new" in warning
        assert sha[:12] in warning
        image = run["variants"]["base"]["id"]
        assert app.run(image, "cat", "behaviour") == "committed"
        assert "new" not in app.run(image, "ls")

    def test_an_older_revision(self, app: App) -> None:
        old = app.commit(behaviour="old")
        app.commit(behaviour="new")
        run = app.build(source={"path": str(app.path), "revision": "main~1"}).must_pass()
        assert run["sha"] == old
        assert app.run(run["variants"]["base"]["id"], "cat", "behaviour") == "old"

    def test_a_context_below_the_top_and_its_dockerignore(self, app: App) -> None:
        (app.path / "service").mkdir()
        app.commit(**{
            "service/Dockerfile.w": DOCKERFILE, "service/worker.py": "", "service/__dockerignore": "secret\n",
            "service/secret": "x", "outside": "x"})
        source = {"path": str(app.path), "context": "service", "dockerfile": "Dockerfile.w"}
        run = app.build(source=source).must_pass()
        listed = app.run(run["variants"]["base"]["id"], "ls", "-A").split()
        assert "worker.py" in listed
        assert not {"secret", "outside", "nonce"} & set(listed)
        same = app.build(check=True, source={**source, "path": f"{app.path}/service", "context": "."}).must_pass()
        assert (same["release_id"], same.changed) == (run["release_id"], False)

    def test_a_link_out_of_the_context_shows_nothing_of_this_machine(self, app: App) -> None:
        (app.path / "leak").symlink_to("/etc/hostname")
        app.commit()
        image = app.build().must_pass()["variants"]["base"]["id"]
        assert app.run(image, "readlink", "leak") == "/etc/hostname\n"

    @pytest.mark.parametrize(("source", "said"), [
        ({"revision": "nope"}, "revision 'nope'"), ({"context": "nope"}, "source.context"),
        ({"dockerfile": "nope"}, "source.dockerfile"), ({"path": "/"}, "git checkout")])
    def test_what_is_not_there_is_named(self, app: App, source: dict[str, str], said: str) -> None:
        app.commit()
        for check in (True, False):
            app.build(check=check, source={"path": str(app.path), **source}).must_fail(said)

    def test_submodules_are_refused(self, app: App) -> None:
        app.commit()
        app.git("clone", "-q", str(app.path), "vendor")
        app.commit()
        for check in (True, False):
            app.build(check=check).must_fail("a context without submodules; found vendor")


class TestDerived:
    """Somebody builds upon a release's image: what comes out carries its labels, and here its tags too."""

    def test_the_release_is_found_and_gets_its_tags_back(self, app: App) -> None:
        app.commit()
        genuine = app.build().must_pass()["variants"]["base"]
        # The classic builder makes the genuine image a parent; an engine's list hides parents that have no name.
        dockerfile = io.BytesIO(f"FROM {genuine['id']}\nENV PATCHED=1\n".encode())
        derived, _log = app.engine.images.build(fileobj=dockerfile, rm=True)
        for tag in genuine["tags"]:
            derived.tag(*tag.split(":"))
        healed = app.build().must_pass()
        assert healed["changes"] == [f"tag {tag}" for tag in genuine["tags"]]
        assert healed["variants"]["base"]["id"] == genuine["id"]

    def test_it_is_not_taken_for_the_release_that_is_gone(self, app: App) -> None:
        app.commit()
        genuine = app.build().must_pass()["variants"]["base"]
        derived = app.derive(genuine["tags"][0], "ENV PATCHED=1")
        app.engine.images.remove(genuine["tags"][1])  # the last name of the genuine image
        assert set(app.images()) == {derived}
        for check in (True, False):
            assert "build base" in app.build(check=check).must_pass()["changes"]
        assert app.tags()[genuine["tags"][0]] != derived
