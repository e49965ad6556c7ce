# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that must not become a release: each is refused with all that is wrong, and nothing of it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
from support.image_app import App

FROM = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nWORKDIR /app\nCOPY . .\n"
COMMAND = 'CMD ["python3", "/app/worker.py"]\n'
NO_JSON = "RUN find / -xdev -name 'json' -path '*python3*' -prune -exec rm -r {} +\n"
NO_SHELL = 'RUN ["python3", "-c", "import os; [os.remove(p) for p in (\'/bin/sh\', \'/bin/dash\', \'/bin/bash\')]"]\n'


@pytest.fixture
def app(tmp_path: Path, base_reference: str) -> Iterator[App]:
    made = App(tmp_path, base_reference)
    yield made
    made.close()


def refused(app: App, dockerfile: str, *said: str, **variant: Any) -> None:
    """The build is refused, and there is no image, name or temporary tag of it."""
    app.commit(dockerfile)
    app.build(variants={"base": variant}).must_fail("variant base", *said)
    assert app.images() == {}
    assert app.tags() == {}


@pytest.mark.parametrize(("lines", "said"), [
    (COMMAND + "VOLUME /app\n", "VOLUME /app covers /app"),
    (COMMAND + "VOLUME /etc/driftguard\n", "VOLUME /etc/driftguard covers"),
    ("RUN ln -s /app /link\n" + COMMAND + "VOLUME /link/data\n", "VOLUME /link/data covers /app"),
    (COMMAND + "RUN install -d -o 10077 /etc/driftguard\n", "/etc/driftguard absent"),
    (COMMAND + "ONBUILD RUN touch /late\n", "ONBUILD RUN touch /late"),
    ("CMD []\n", "a command (ENTRYPOINT or CMD); found none"),
    ('CMD ["nope"]\n', "found 'nope'"),
    (COMMAND + "USER nobody-here\n", "unable to find user nobody-here"),
    (COMMAND + NO_JSON + "RUN rm /bin/dash\n", "Python 3.8 or newer"),
], ids=lambda value: value.strip().splitlines()[-1])
def test_refused(app: App, lines: str, said: str) -> None:
    refused(app, FROM + lines, said)


def test_all_that_is_wrong_with_contents_and_size_is_named_at_once(app: App) -> None:
    refused(
        app, FROM + COMMAND, "at most 1.0 MB", "tesseract-ocr is missing", "python3 is there",
        "/etc/os-release is there", must_contain=["tesseract-ocr", "dpkg", "/usr/bin/env", "sh"],
        must_not_contain=["python3", "/etc/os-release"], max_size="1MB")


def test_a_distroless_image_has_nothing_that_runs_a_guard(app: App) -> None:
    dockerfile = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE} AS build\nFROM scratch\nCOPY --from=build /bin/true /true\n"
    refused(app, dockerfile + 'CMD ["/true"]\n', "no python; no sh", "distroless")


@pytest.mark.parametrize(("lines", "guard", "program"), [
    ("", "python", "/usr/bin/python3"), (NO_SHELL, "python", "/usr/bin/python3"), (NO_JSON, "sh", "/usr/bin/sh"),
    ("RUN rm -r /usr/bin/python3*\n", "sh", "/usr/bin/sh"),
    ("RUN ln -s /usr/bin/python3 /opt/python3\nENV PATH=/opt:/usr/bin\n", "python", "/opt/python3"),
], ids=["whole", "no shell", "no json", "no python", "first on the path"])
def test_the_guard_that_can_run(app: App, lines: str, guard: str, program: str) -> None:
    app.commit(FROM + lines + 'CMD ["env"]\nUSER daemon\n')
    image = app.build().must_pass()["variants"]["base"]
    assert image["guard"] == guard
    assert image["guard_program"].startswith(program)
    assert (image["uid"], image["gid"]) == (1, 1)


def test_a_failed_variant_leaves_the_release_unfinished_and_its_repair_completes_it(app: App) -> None:
    app.commit(FROM + COMMAND)
    good: dict[str, Any] = {"base": {}, "other": {}}
    bad = {**good, "other": {"must_contain": ["tesseract-ocr"]}}
    app.build(variants=bad).must_fail("variant other", "tesseract-ocr")
    assert not any("-other" in tag for tag in app.tags())
    assert not any("local/build" in tag for tag in app.tags())
    repaired = app.build(variants=good).must_pass()
    assert "build other" in repaired["changes"]


class TestChecksThatChange:
    """The checks are no input of the release; an image that is there is looked into again."""

    def test_a_stricter_check_finds_what_is_there(self, app: App) -> None:
        app.commit(FROM + COMMAND)
        made = app.build().must_pass()
        app.build(variants={"base": {"must_not_contain": ["dpkg"]}}).must_fail("dpkg is there")
        passed = app.build(variants={"base": {"must_contain": ["dpkg"]}}).must_pass()
        assert (passed.changed, passed["release"]) == (False, made["release"])

    def test_a_tighter_budget_is_held_in_check_mode_too(self, app: App) -> None:
        app.commit(FROM + COMMAND)
        app.build().must_pass()
        for check in (True, False):
            app.build(check=check, variants={"base": {"max_size": "1MB"}}).must_fail("at most 1.0 MB")
