# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images go to a registry, by digest, and come back to it when it has lost them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
from support.image_app import App
from support.registry import Registry, running_registry

# A shell and its libraries alone, so that a push takes no time.
SMALL = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS whole
RUN for file in /bin/dash $(ldd /bin/dash | grep -o '/[^ ]*'); do \\
      mkdir -p "/out$(dirname "$file")" && cp -L "$file" "/out$file"; done; ln -s dash /out/bin/sh
FROM scratch
COPY --from=whole /out /
CMD ["sh"]
"""


@pytest.fixture(scope="module")
def registry(base_reference: str) -> Iterator[Registry]:
    with running_registry(base_reference) as running:
        yield running


@pytest.fixture
def app(tmp_path: Path, base_reference: str) -> Iterator[App]:
    made = App(tmp_path, base_reference)
    made.commit(SMALL)
    yield made
    made.close()


def pushed(app: App, registry: Registry) -> dict[str, Any]:
    return {"push": True, "repository": f"{registry.name}/shop/{app.fleet}"}


def test_check_run_check_run(app: App, registry: Registry) -> None:
    options = pushed(app, registry)
    predicted = app.build(check=True, **options).must_pass()
    done = app.build(**options).must_pass()
    assert done["changes"] == predicted["changes"]
    sha = done["sha"]
    tags = [f"{options['repository']}:{tag}" for tag in (sha, sha[:7], done["release_id"])]
    assert done["changes"] == ["build base", *(f"tag {tag}" for tag in tags), *(f"push {tag}" for tag in tags)]
    assert predicted["release"] == {
        "fleet": app.fleet, "release_id": done["release_id"], "sha": sha, "created": None, "variants": {}}
    image = done["release"]["variants"]["base"]
    assert registry.digest(f"shop/{app.fleet}", sha) == registry.digest(f"shop/{app.fleet}", sha[:7]) == image["digest"]
    assert image["image"] == f"{options['repository']}@{image['digest']}"
    assert app.engine.images.get(image["image"]).id == image["id"]
    for check in (True, False):
        idle = app.build(check=check, **options).must_pass()
        assert (idle.changed, idle["release"]) == (False, done["release"])


def test_a_local_release_is_pushed_without_another_build(app: App, registry: Registry) -> None:
    options = pushed(app, registry)
    local = app.build(**{**options, "push": False}).must_pass()
    assert local["variants"]["base"]["image"] == local["variants"]["base"]["id"]
    predicted = app.build(check=True, **options).must_pass()
    assert predicted["release"]["variants"] == {}
    done = app.build(**options).must_pass()
    assert [change.split()[0] for change in done["changes"]] == ["tag", "push", "push", "push"]
    assert predicted["changes"] == done["changes"]
    assert done["variants"]["base"]["id"] == local["variants"]["base"]["id"]


def test_what_the_registry_lost_is_pushed_again(app: App, registry: Registry) -> None:
    options = pushed(app, registry)
    first = app.build(**options).must_pass()
    digest = first["variants"]["base"]["digest"]
    registry.forget(f"shop/{app.fleet}", digest)
    predicted = app.build(check=True, **options).must_pass()
    healed = app.build(**options).must_pass()
    assert predicted["changes"] == healed["changes"] == [f"push {tag}" for tag in first["variants"]["base"]["tags"]]
    assert healed["release"] == first["release"]
    assert registry.digest(f"shop/{app.fleet}", first["sha"]) == digest


def test_what_was_built_once_is_pulled_and_not_built_again(app: App, registry: Registry) -> None:
    options = pushed(app, registry)
    first = app.build(**options).must_pass()
    app.engine.images.remove(first["variants"]["base"]["id"], force=True)
    predicted = app.build(check=True, **options).must_pass()
    done = app.build(**options).must_pass()
    assert predicted["changes"] == done["changes"]
    assert [change.split()[0] for change in done["changes"]] == ["pull", "tag", "tag", "tag"]
    assert done["release"] == first["release"]
    idle = app.build(**options).must_pass()
    assert (idle.changed, idle["release"]) == (False, first["release"])


def test_another_image_under_the_releases_tag_is_not_taken_for_it(app: App, registry: Registry) -> None:
    options = pushed(app, registry)
    first = app.build(**options).must_pass()
    own = f"{options['repository']}:{first['release_id']}"
    app.derive(own, "ENV OTHER=1")
    app.engine.images.push(*own.rsplit(":", 1))
    for image in (first["variants"]["base"]["id"], own):
        app.engine.images.remove(image, force=True)
    app.build(**options).must_fail("stamped for release", "delete the tag")
    assert app.build(check=True, **options)["changes"][0] == "pull base"


def test_a_tag_that_was_moved_in_the_registry_is_set_again(app: App, registry: Registry) -> None:
    options = pushed(app, registry)
    first = app.build(**options).must_pass()
    short = first["variants"]["base"]["tags"][1]
    app.derive(short, "ENV OTHER=1")
    app.engine.images.push(*short.rsplit(":", 1))
    assert registry.digest(f"shop/{app.fleet}", first["short_sha"]) != first["variants"]["base"]["digest"]
    predicted = app.build(check=True, **options).must_pass()
    healed = app.build(**options).must_pass()
    assert predicted["changes"] == healed["changes"] == [f"tag {short}", f"push {short}"]
    assert registry.digest(f"shop/{app.fleet}", first["short_sha"]) == first["variants"]["base"]["digest"]


def test_a_registry_that_does_not_answer(app: App, base_reference: str) -> None:
    with running_registry(base_reference) as registry:
        options = pushed(app, registry)
        app.build(**options).must_pass()
        registry.kill()
        for check in (True, False):
            app.build(check=check, **options).must_fail("registry of ", "docker login")
