# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compose file: bytes depend on the input alone, and every text reaches the worker as it was written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.driftguard.workers.plugins.module_utils.compose_render import (
    Rendered,
    Surroundings,
    named_secrets,
    render,
)
from ansible_collections.driftguard.workers.plugins.module_utils.compose_yaml import to_yaml
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_spec import read_services
from hypothesis import given
from hypothesis import strategies as st
from support.containers import IMAGE_ID, SHA
from support.release_data import DIGEST, release_of, variant_image

IMAGES = release_of().variants
LEAST = {"memory": "64M"}
NODE_GUARD = ["--require", "/opt/driftguard/guard/version-guard.cjs"]


def surroundings(**changes: Any) -> Surroundings:
    return Surroundings(**{
        "fleet": "demo", "host": "host1", "root": "/opt/driftguard/demo", "sha": SHA,
        "redis_url": "redis://redis:6379/0",
        **changes})


def rendered(services: Any = None, images: Any = None, **around: Any) -> Rendered:
    spec = read_services("demo", services or {"extractor": None}, LEAST)
    return render(surroundings(**around), spec, IMAGES if images is None else images)


def body(service: Any = None, images: Any = None, **around: Any) -> dict[str, Any]:
    """One service as compose reads it."""
    document = yaml.safe_load(rendered({"extractor": service}, images, **around).text)
    found: dict[str, Any] = document["services"]["extractor"]
    return found


def test_a_service_is_hardened_guarded_and_limited() -> None:
    service = body()
    labels = service.pop("labels")
    assert service == {
        "image": IMAGE_ID, "pull_policy": "never", "restart": "always", "init": True, "read_only": True,
        "entrypoint": ["/usr/bin/python3", "-IS", "/opt/driftguard/guard/version_guard.py", "--"],
        "command": ["python", "-m", "worker"], "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"],
        "environment": {
            "BULLMQ_PREFIX": "demo", "EXPECTED_GIT_SHA": SHA, "NODE_ENV": "production",
            "REDIS_URL": "redis://redis:6379/0",
            "WORKER_CONCURRENCY": "1", "WORKER_DRAIN_SECONDS": "20", "WORKER_ENV": "production",
            "WORKER_FLEET": "demo", "WORKER_HOST": "host1", "WORKER_TYPE": "extractor"},
        "tmpfs": ["/tmp"], "stop_grace_period": "30s",
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        "volumes": [{
            "type": "bind", "source": "/opt/driftguard/demo/guard", "target": "/opt/driftguard/guard",
            "read_only": True,
            "bind": {"create_host_path": False}}],
        "deploy": {"resources": {"limits": {"memory": "64m", "pids": 256}}, "replicas": 1}}
    assert labels == {
        "io.driftguard.fleet": "demo", "io.driftguard.service": "extractor",
        "io.driftguard.spec": labels["io.driftguard.spec"]}


def test_what_the_rollout_needs_of_it() -> None:
    made = rendered(
        {"extractor": {
            "replicas": 2, "stop_grace_period": "1m", "networks": ["own"], "volumes": ["/b:/b", "c:/c", "/a:/a"]}},
        networks=("common",))
    label = yaml.safe_load(made.text)["services"]["extractor"]["labels"]["io.driftguard.spec"]
    assert made.services == {"extractor": {
        "variant": "base", "replicas": 2, "image": IMAGE_ID, "spec": label, "guard": "exec", "grace": 60,
        "memory": 2**26, "networks": ["common", "own"], "paths": ["/a", "/b"], "volumes": []}}


def test_the_order_is_told_and_makes_no_other_instance() -> None:
    first, plain = (rendered({"extractor": service}) for service in ({"order": "start-first"}, {"order": "stop-first"}))
    documents = [yaml.safe_load(made.text)["services"]["extractor"] for made in (first, plain)]
    assert documents[0]["deploy"].pop("update_config") == {"order": "start-first"}
    assert documents[0] == documents[1], "the spec's mark too: containers aren't recreated for it"
    assert first.services["extractor"].pop("order") == "start-first"
    assert first.services == plain.services
    assert plain.text == rendered().text


def test_a_volume_that_something_else_made_keeps_its_name_and_has_to_be_there() -> None:
    made = rendered({"extractor": {"volumes": ["shop_data:/data:external", "own:/own"]}})
    assert yaml.safe_load(made.text)["volumes"] == {"own": {}, "shop_data": {"external": True}}
    assert made.services["extractor"]["volumes"] == ["shop_data"]


def test_the_images_own_entrypoint_and_command_come_after_the_guard() -> None:
    service = body({"variant": "ocr"})
    assert service["image"] == f"registry:5000/demo-worker-ocr@{DIGEST}"
    assert service["entrypoint"] == ["/bin/sh", "/opt/driftguard/guard/version_guard.sh", "--"]
    assert service["command"] == ["/usr/bin/tini", "--", "python", "-m", "worker"]
    assert body({"variant": "ocr", "command": ["node", "x.js"]})["command"] == ["/usr/bin/tini", "--", "node", "x.js"]


@pytest.mark.parametrize(("command", "rendered_as"), [
    (["node", "dist/worker.js"], ["node", *NODE_GUARD, "dist/worker.js"]),
    (["/usr/local/bin/node", "--enable-source-maps", "x.js"],
     ["/usr/local/bin/node", *NODE_GUARD, "--enable-source-maps", "x.js"]),
])
def test_the_node_guard_comes_right_after_node(command: list[str], rendered_as: list[str]) -> None:
    service = body({"command": command, "guard": "node"})
    assert service["command"] == rendered_as
    assert service["entrypoint"] == ["/usr/bin/python3", "-IS", "/opt/driftguard/guard/version_guard.py", "--"]
    assert body({"variant": "ocr", "command": command, "guard": "node"})["command"] == [
        "/usr/bin/tini", "--", *rendered_as]


@pytest.mark.parametrize("command", [
    ["npm", "start"], ["sh", "-c", "node x.js"], ["python", "-m", "node"], ["x/nodes"]])
def test_the_node_guard_needs_node(command: list[str]) -> None:
    with pytest.raises(DriftguardError, match="fleet demo, service extractor, key guard"):
        body({"command": command, "guard": "node"})


PYTHON_GUARD = ["/usr/bin/python3", "-IS", "/opt/driftguard/guard/version_guard.py"]


def test_a_supervisor_stays_in_front_of_the_command() -> None:
    plain, supervised = body(), body({"guard": "supervise"})
    assert supervised["entrypoint"] == [*PYTHON_GUARD, "--supervise", "--"]
    assert supervised["healthcheck"]["test"] == ["CMD", *PYTHON_GUARD, "--health"]
    same = ("command", "environment", "volumes", "tmpfs", "cap_drop", "read_only")
    assert [plain[key] for key in same] == [supervised[key] for key in same]
    own = body({"guard": "supervise", "healthcheck": {"test": ["true"]}})
    assert own["healthcheck"]["test"] == ["CMD", "true"]
    assert body({"guard": "supervise", "healthcheck": False})["healthcheck"] == {"disable": True}


def test_a_supervisor_needs_a_full_python() -> None:
    with pytest.raises(DriftguardError) as caught:
        body({"guard": "supervise", "variant": "ocr"})
    assert "service extractor, key guard" in caught.value.subject
    assert (caught.value.found, "no full Python" in caught.value.expected) == ("supervise", True)


def test_an_image_keeps_its_own_health_check_below_a_supervisor() -> None:
    images = {**IMAGES, "base": variant_image(healthcheck=True)}
    assert "test" not in body({"guard": "supervise"}, images)["healthcheck"]


@pytest.mark.parametrize(("service", "around", "check"), [
    (None, {}, None), ({"healthcheck": False}, {}, {"disable": True}),
    ({"variant": "ocr"}, {}, {"interval": "30s", "timeout": "10s", "retries": 3, "start_period": "30s"}),
    ({"variant": "ocr"}, {"start_interval": True},
     {"interval": "30s", "timeout": "10s", "retries": 3, "start_period": "30s", "start_interval": "2s"}),
    ({"healthcheck": {"test": ["test", "-f", "/x"], "interval": "5s"}}, {},
     {"test": ["CMD", "test", "-f", "/x"], "interval": "5s", "timeout": "10s", "retries": 3, "start_period": "30s"}),
])
def test_health_checks(service: Any, around: dict[str, Any], check: Any) -> None:
    assert body(service, **around).get("healthcheck") == check


def test_secrets_are_files_of_the_images_user() -> None:
    made = yaml.safe_load(rendered(
        {"a": {"secrets": ["token"]}, "b": {"variant": "ocr"}},
        secret_marks={"token": "1", "redis_password": "2"}).text)
    assert made["services"]["a"]["secrets"] == [
        {"source": "redis_password.10001", "target": "redis_password"}, {"source": "token.10001", "target": "token"}]
    assert made["services"]["b"]["secrets"] == [{"source": "redis_password.0", "target": "redis_password"}]
    assert made["services"]["b"]["environment"]["REDIS_PASSWORD_FILE"] == "/run/secrets/redis_password"
    assert made["secrets"] == {
        "redis_password.0": {"file": "/opt/driftguard/demo/secrets/0/redis_password.2"},
        "redis_password.10001": {"file": "/opt/driftguard/demo/secrets/10001/redis_password.2"},
        "token.10001": {"file": "/opt/driftguard/demo/secrets/10001/token.1"}}


@pytest.mark.parametrize("root", [
    "/opt/driftguard/demo", "/a b/${X}/'č\"\\/demo", "/srv/secrets/5/secrets", "/srv/secrets/1/token.1/demo",
])
def test_what_a_compose_file_names_is_found_in_its_text(root: str) -> None:
    names = {"token": "1" * 16, "token.1111111111111111": "2" * 16, "a.b-C_9": "f" * 16, "redis_password": "0" * 16}
    text = rendered({"a": {"secrets": list(names)}, "b": {"variant": "ocr"}}, secret_marks=names, root=root).text
    wanted = {f"10001/{name}.{mark}" for name, mark in names.items()} | {f"0/redis_password.{'0' * 16}"}
    assert wanted <= named_secrets(text)
    assert "10001/token" not in named_secrets(text)
    if root == "/opt/driftguard/demo":
        assert named_secrets(text) == wanted


def test_the_older_layouts_files_are_named_too() -> None:
    text = "secrets:\n  a.1:\n    file: /opt/driftguard/demo/secrets/1/a\n  b.c.1:\n    file: \"/1e3/secrets/1/b.c\"\n"
    assert named_secrets(text) == {"1/a", "1/b.c"}
    assert named_secrets("") == named_secrets(rendered().text) == set()


def test_an_unknown_secret_is_refused() -> None:
    with pytest.raises(DriftguardError, match=r"service extractor, key secrets.*nobody"):
        rendered({"extractor": {"secrets": ["nobody"]}}, secret_marks={"token": "1"})


def test_networks_and_volumes() -> None:
    made = yaml.safe_load(rendered(
        {"a": {"networks": ["own"], "volumes": ["data:/data", "/srv/in:/in:ro"]}, "b": None},
        networks=("common",)).text)
    assert made["services"]["a"]["networks"] == ["common", "own"]
    assert made["services"]["b"]["networks"] == ["common"]
    assert made["networks"] == {"common": {"external": True}, "own": {"external": True}}
    assert made["volumes"] == {"data": {}}
    assert made["services"]["a"]["volumes"][1:] == [
        {"type": "volume", "source": "data", "target": "/data", "read_only": False},
        {"type": "bind", "source": "/srv/in", "target": "/in", "read_only": True, "bind": {"create_host_path": False}}]


def test_limits_and_reservations() -> None:
    service = body({"memory": "1.5G", "cpus": 0.5, "pids": 9, "reservations": {"memory": "7340033b", "cpus": "0.25"}})
    assert service["deploy"]["resources"] == {
        "limits": {"memory": "1536m", "pids": 9, "cpus": "0.5"}, "reservations": {"memory": "7340033b", "cpus": "0.25"}}


def test_development_is_said_only_when_asked_for() -> None:
    environment = body(production=False)["environment"]
    assert (environment["NODE_ENV"], environment["WORKER_ENV"]) == ("development", "development")


def test_the_queue_prefix_is_the_services_to_choose() -> None:
    assert body({"environment": {"BULLMQ_PREFIX": "bull"}})["environment"]["BULLMQ_PREFIX"] == "bull"


def test_an_image_that_is_not_built_yet() -> None:
    made = rendered({"extractor": {"secrets": ["token"]}}, {}, secret_marks={"token": "1"})
    assert made.services["extractor"]["image"] is None
    assert made.services["extractor"]["spec"] is None
    assert yaml.safe_load(made.text)["services"]["extractor"]["image"] == "(known after the build)"


CHANGES: list[tuple[Any, dict[str, Any]]] = [
    ({"memory": "65M"}, {}), ({"environment": {"A": "1"}}, {}), ({"command": ["x"]}, {}), ({"concurrency": 2}, {}),
    ({"volumes": ["data:/data"]}, {}), ({"tmpfs": []}, {}), ({"read_only": False}, {}),
    ({"stop_grace_period": "31s"}, {}),
    ({"healthcheck": False}, {}), ({"variant": "ocr"}, {}), (None, {"redis_url": "redis://redis:6379/1"}),
    (None, {"host": "host2"}), (None, {"secret_marks": {"redis_password": "1"}}), (None, {"sha": "f" * 40}),
    (None, {"networks": ("n",)}), (None, {"root": "/srv/demo"}), (None, {"production": False}),
]


def spec_of(service: Any = None, **around: Any) -> str:
    return str(rendered({"extractor": service}, **around).services["extractor"]["spec"])


@pytest.mark.parametrize(("service", "around"), CHANGES)
def test_another_configuration_has_another_hash(service: Any, around: dict[str, Any]) -> None:
    assert spec_of(service, **around) != spec_of()


def test_a_changed_secret_changes_only_the_services_that_have_it() -> None:
    services = {"a": {"secrets": ["token"]}, "b": {"secrets": ["other"]}}
    before = rendered(services, secret_marks={"token": "1", "other": "1"}).services
    after = rendered(services, secret_marks={"token": "2", "other": "1"}).services
    assert before["a"]["spec"] != after["a"]["spec"]
    assert before["b"] == after["b"]


def test_replicas_and_siblings_change_no_hash() -> None:
    assert spec_of({"replicas": 5}) == spec_of()
    assert rendered({"extractor": None, "ocr": None}).services["extractor"]["spec"] == spec_of()


def test_equal_input_in_any_order_gives_equal_bytes() -> None:
    one = rendered({"a": {"environment": {"X": 1, "Y": 2}, "pids": 5}, "b": {"secrets": ["t", "s"]}},
                   secret_marks={"s": "1", "t": "2"}, networks=("m", "n"))
    other = rendered({"b": {"secrets": ["s", "t"]}, "a": {"pids": 5, "environment": {"Y": "2", "X": "1"}}},
                     secret_marks={"t": "2", "s": "1"}, networks=("n", "m"))
    assert one == other


@pytest.mark.parametrize("text", [
    "12345e7", "0o7", "1e3", ".5", "1_000", "0x1F", "1:20", "2001-1-1T1:1:1Z", "yes", "on", "null", "~", "", " a ",
    "a: b",
    "# no", "a\u0085b", "a\u2028b", "a\nb", "a\r\nb", "\ufeff", "'", '"', "\\n", "- x", "%", "@", "=", "<<", "a:", "é",
    "😀",
])
def test_a_text_that_looks_like_something_else_is_quoted(text: str) -> None:
    written = to_yaml({"key": text})
    assert yaml.safe_load(written) == {"key": text}
    assert written.startswith(("key: '", 'key: "'))


@pytest.mark.parametrize(
    "text", ["extractor", "/opt/x", IMAGE_ID, "max-size", "no-new-privileges:true", "a@b", "A_1.x"]
)
def test_a_plain_word_is_not(text: str) -> None:
    assert to_yaml({"key": text}) == f"key: {text}\n"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_survives_yaml_and_dollars_are_compose_proof(text: str) -> None:
    assert yaml.safe_load(to_yaml({"key": [text]})) == {"key": [text]}
    value = body({"environment": {"A": text}})["environment"]["A"]
    assert value.replace("$$", "") == text.replace("$", "")
    assert value.count("$") == 2 * text.count("$")


def test_no_document_has_aliases_or_folded_lines() -> None:
    text = rendered({f"s{number}": {"environment": {"A": "word " * 500}} for number in range(3)}).text
    assert "&id" not in text
    assert all(line.startswith((" ", "name:", "services:")) for line in text.splitlines())


def test_a_mount_over_the_code_of_its_image_is_refused() -> None:
    with pytest.raises(DriftguardError, match="mount /work/src: expected no mount over the code in /work"):
        rendered({"extractor": {"volumes": ["data:/work/src"]}})
    assert rendered({"extractor": {"volumes": ["data:/work/src"]}}, {"base": variant_image(working_dir="/srv")})
