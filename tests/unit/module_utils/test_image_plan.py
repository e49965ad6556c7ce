# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release's id follows its inputs, its stamp is what the guards read, and only what was stamped is genuine."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import image_plan
from ansible_collections.driftguard.workers.plugins.module_utils.image_dockerfile import Bases, Pinned
from ansible_collections.driftguard.workers.plugins.module_utils.image_plan import Genuine, Probe, Stamp, Wanted
from ansible_collections.driftguard.workers.plugins.module_utils.image_request import Base, Checks, Request, VariantSpec
from ansible_collections.driftguard.workers.plugins.module_utils.names import RELEASE_PATTERN
from ansible_collections.driftguard.workers.plugins.module_utils.release_info import Release
from hypothesis import given
from hypothesis import strategies as st

SHA = "0123456789abcdef0123456789abcdef01234567"
CREATED = "2026-01-02T03:04:05Z"
LOCAL = Pinned("driftguard.local/base:" + "1" * 64, "driftguard.local/base", "sha256:" + "1" * 64, local=True)
STAMP = Stamp("demo", "base", "0123456789ab.89abcdef0123", SHA, CREATED, "driftguard.local/base", "sha256:" + "1" * 64)
REQUEST = Request(
    fleet="demo", path="/app", revision="HEAD", context=".", dockerfile="Dockerfile",
    base=Base("driftguard.local/base", LOCAL.reference, "BASE_IMAGE"), secrets={"ca": "/a"},
    variants={"base": VariantSpec("base", "demo-worker", {"A": "1"}), "ocr": VariantSpec("ocr", "demo-worker-ocr")},
    latest=False, push=False, builder="auto", timeout=60)


def identity(request: Request = REQUEST, sha: str = SHA, directory: str = ".", text: str = "FROM x\n") -> str:
    return image_plan.release_id(request, sha, directory, text)


class TestReleaseId:
    def test_its_form(self) -> None:
        assert RELEASE_PATTERN.match(identity())
        assert identity().startswith(SHA[:12] + ".")

    def test_it_never_changes_between_versions_of_this_collection(self) -> None:
        # A new algorithm would make every fleet's next deploy a new release; raise STAMP_FORMAT when it must be.
        assert identity() == "0123456789ab.442414db1348"

    @pytest.mark.parametrize("changed", [
        {"base": None}, {"base": Base("driftguard.local/base", "other:" + "2" * 64, "BASE_IMAGE")},
        {"base": Base("driftguard.local/base", LOCAL.reference, "BASE")}, {"dockerfile": "Dockerfile.worker"},
        {"secrets": {}}, {"secrets": {"other": "/a"}}, {"variants": {"base": REQUEST.variants["base"]}},
        {"variants": {**REQUEST.variants, "ocr": VariantSpec("ocr", "demo-worker-ocr", target="app")}},
        {"variants": {**REQUEST.variants, "ocr": VariantSpec("ocr", "demo-worker-ocr", {"A": "2"})}},
    ])
    def test_every_input_counts(self, changed: dict[str, Any]) -> None:
        assert identity(replace(REQUEST, **changed)) != identity()

    @pytest.mark.parametrize("changed", [
        {"path": "/elsewhere"}, {"revision": "main"}, {"secrets": {"ca": "/b"}}, {"latest": True}, {"push": True},
        {"builder": "classic"}, {"timeout": 1}, {"fleet": "other"},
        {"variants": {name: REQUEST.variants[name] for name in ("ocr", "base")}},
        {"variants": {**REQUEST.variants, "ocr": VariantSpec("ocr", "registry/x", checks=Checks(("a",), ("b",), 1))}},
    ])
    def test_what_does_not_change_the_image_does_not_count(self, changed: dict[str, Any]) -> None:
        assert identity(replace(REQUEST, **changed)) == identity()

    def test_commit_context_and_dockerfile_count(self) -> None:
        assert len({identity(), identity(sha="f" * 40), identity(directory="sub"), identity(text="FROM y\n")}) == 4

    @given(st.dictionaries(st.text(), st.text()), st.text())
    def test_any_text_has_one(self, arguments: dict[str, str], text: str) -> None:
        request = replace(REQUEST, variants={"base": VariantSpec("base", "demo-worker", arguments)})
        assert RELEASE_PATTERN.match(identity(request, text=text))


class TestStamp:
    def test_the_document_is_read_by_a_shell_line_by_line(self) -> None:
        assert STAMP.document() == (
            '{\n  "schema": "1",\n  "fleet": "demo",\n  "variant": "base",\n'
            '  "release": "0123456789ab.89abcdef0123",\n'
            f'  "revision": "{SHA}",\n  "created": "{CREATED}",\n  "baseName": "driftguard.local/base",\n'
            f'  "baseDigest": "sha256:{"1" * 64}"\n}}\n')

    def test_the_context_puts_a_read_only_file_of_root_on_the_image(self) -> None:
        with tarfile.open(fileobj=io.BytesIO(STAMP.context("some:tag"))) as archive:
            members = {member.name: member for member in archive.getmembers()}
            text = {name: (archive.extractfile(name) or io.BytesIO()).read().decode() for name in members}
        assert (members["image.json"].mode, members["image.json"].uid, members["image.json"].gid) == (0o444, 0, 0)
        assert text["image.json"] == STAMP.document()
        assert text["Dockerfile"].splitlines() == [
            "FROM some:tag", "COPY image.json /etc/driftguard/image.json", f"ENV GIT_SHA={SHA} BUILD_DATE={CREATED}"]

    def test_a_name_for_the_base_goes_only_to_images_upon_it(self) -> None:
        other = Pinned("python@sha256:" + "2" * 64, "python", "sha256:" + "2" * 64, local=False)
        named = replace(REQUEST, base=Base("debian", LOCAL.reference, "BASE_IMAGE"))
        plans = image_plan.wanted(named, SHA, identity(), {"base": Bases(LOCAL, ()), "ocr": Bases(other, ())})
        stamps = {name: plan.stamp(CREATED) for name, plan in plans.items()}
        assert (stamps["base"].baseName, stamps["ocr"].baseName) == ("debian", "python")
        assert stamps["ocr"].baseDigest == other.digest

    def test_scratch_has_words_that_the_guards_can_read(self) -> None:
        plans = image_plan.wanted(REQUEST, SHA, identity(), dict.fromkeys(REQUEST.variants, Bases(None, ())))
        stamp = plans["base"].stamp(CREATED)
        assert (stamp.baseName, stamp.baseDigest) == ("scratch", "none")


def test_tags() -> None:
    plans = image_plan.wanted(
        replace(REQUEST, latest=True), SHA, identity(), dict.fromkeys(REQUEST.variants, Bases(LOCAL, ())))
    assert plans["ocr"].tags == (f"demo-worker-ocr:{SHA}", "demo-worker-ocr:0123456", "demo-worker-ocr:latest")
    plans = image_plan.wanted(REQUEST, SHA, identity(), dict.fromkeys(REQUEST.variants, Bases(LOCAL, ())))
    assert plans["base"].tags == (f"demo-worker:{SHA}", "demo-worker:0123456")


PLAN: Wanted = image_plan.wanted(
    REQUEST, SHA, STAMP.release, dict.fromkeys(REQUEST.variants, Bases(LOCAL, (LOCAL,))))["base"]
BUILT: dict[str, Any] = {
    "Id": "sha256:" + "a" * 64, "Size": 5, "RootFS": {"Layers": ["l1", "l2"]},
    "Config": {
        "Env": ["PATH=/bin", "GIT_SHA=unknown"], "Cmd": ["python3"], "Entrypoint": None, "User": "worker",
        "WorkingDir": "/app", "Volumes": None, "Labels": {"a": "b"}}}


def stamped(built: dict[str, Any] = BUILT, **probe: Any) -> dict[str, Any]:
    """What a builder makes of the stamp's context."""
    config = image_plan.stamped(built["Config"], STAMP)
    plain: dict[str, Any] = {
        "uid": 1, "gid": 2, "guard": "python", "program": "/usr/bin/python3", "checks": "c",
        "seal": image_plan.seal(config, built["RootFS"]["Layers"])}
    label = Probe(**{**plain, **probe}).label()
    return {
        **built, "RepoTags": [], "RootFS": {"Layers": [*built["RootFS"]["Layers"], "stamp"]},
        "Config": {**config, "Labels": {**config["Labels"], image_plan.LABEL_PROBE: label}}}


class TestGenuine:
    def test_what_was_stamped_is(self) -> None:
        found = image_plan.genuine(stamped(), PLAN)
        assert found is not None
        assert found.probe.program == "/usr/bin/python3"

    def test_order_of_environment_and_empty_values_make_no_difference(self) -> None:
        image = stamped()
        image["Config"]["Env"] = list(reversed(image["Config"]["Env"]))
        image["Config"]["Entrypoint"] = []
        image["Config"]["Volumes"] = {}
        assert image_plan.genuine(image, PLAN)

    @pytest.mark.parametrize(("key", "value"), [
        ("Cmd", ["sh"]), ("Entrypoint", ["/evil"]), ("User", "root"), ("WorkingDir", "/"), ("Volumes", {"/app": {}}),
        ("Env", ["GIT_SHA=" + "f" * 40]), ("Healthcheck", {"Test": ["NONE"]}), ("OnBuild", ["RUN true"])])
    def test_an_image_that_was_built_upon_it_with_another_configuration_is_not(self, key: str, value: Any) -> None:
        image = stamped()
        image["Config"][key] = value
        assert image_plan.genuine(image, PLAN) is None

    def test_an_image_that_was_built_upon_it_with_one_more_layer_is_not(self) -> None:
        image = stamped()
        image["RootFS"]["Layers"].append("patched")
        assert image_plan.genuine(image, PLAN) is None

    def test_an_image_with_one_more_label_is_not(self) -> None:
        image = stamped()
        image["Config"]["Labels"]["patched"] = "yes"
        assert image_plan.genuine(image, PLAN) is None

    @pytest.mark.parametrize("changed", [
        {"fleet": "other"}, {"release_id": "0123456789ab.000000000000"}, {"sha": "f" * 40},
        {"spec": REQUEST.variants["ocr"]}])
    def test_an_image_of_another_plan_is_not(self, changed: dict[str, Any]) -> None:
        assert image_plan.genuine(stamped(), replace(PLAN, **changed)) is None

    @pytest.mark.parametrize("wrong", [{"uid": "0"}, {"gid": None}, {"program": 1}, {"guard": []}])
    def test_a_probe_of_other_types_is_not(self, wrong: dict[str, Any]) -> None:
        assert image_plan.genuine(stamped(**wrong), PLAN) is None

    @pytest.mark.parametrize("label", ["", "x", "{}", "[]", "null", '{"uid": 1}', "[" * 10000])
    def test_a_label_that_is_no_probe_is_not(self, label: str) -> None:
        image = stamped()
        image["Config"]["Labels"][image_plan.LABEL_PROBE] = label
        assert image_plan.genuine(image, PLAN) is None

    @pytest.mark.parametrize("image", [
        {"Config": {"Labels": None}}, {"Config": {}}, {"Config": {"Labels": {}}, "RootFS": None}])
    def test_an_image_without_labels_is_not(self, image: dict[str, Any]) -> None:
        assert image_plan.genuine(image, PLAN) is None


def test_of_two_the_tagged_one_then_the_newest_is_taken() -> None:
    def made(number: int, created: str, tags: list[str]) -> Genuine:
        image = copy.deepcopy(stamped())
        image.update(Id=f"sha256:{number}", RepoTags=tags)
        image["Config"]["Labels"]["org.opencontainers.image.created"] = created
        return Genuine(image, Probe(1, 1, "sh", "/bin/sh", "", ""))

    old, new = made(1, "2026-01-01T00:00:00Z", []), made(2, "2026-01-02T00:00:00Z", [])
    tagged = made(3, "2025-01-01T00:00:00Z", ["demo-worker:tag"])
    assert image_plan.choose([], "demo-worker:tag") is None
    assert image_plan.choose([new, old], "demo-worker:tag") is new
    assert image_plan.choose([old, new], "demo-worker:tag") is new
    assert image_plan.choose([tagged, new, old], "demo-worker:tag") is tagged


def test_the_release_is_what_the_other_modules_take() -> None:
    found = image_plan.genuine(stamped(), PLAN)
    assert found is not None
    image = image_plan.variant_image(PLAN, found, None)
    made = image_plan.release({"base": PLAN}, {"base": image}, [found.created, "2025-12-31T00:00:00Z"])
    assert made.created == "2025-12-31T00:00:00Z"
    assert Release.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    pushed = image_plan.variant_image(PLAN, found, "sha256:" + "9" * 64)
    assert pushed.image == "demo-worker@sha256:" + "9" * 64


@pytest.mark.parametrize(("check", "there"), [
    (None, False), ({}, False), ({"Test": []}, False), ({"Test": ["NONE"]}, False), ({"Test": ["CMD", "x"]}, True)])
def test_a_health_check_that_is_switched_off_is_none(check: Any, there: bool) -> None:
    assert image_plan.has_healthcheck({"Healthcheck": check}) is there
