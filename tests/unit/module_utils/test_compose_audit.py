# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of worker_compose_audit that need no Compose: variables, secrets' names, places in files, single rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.audit_checks import Hit
from ansible_collections.driftguard.workers.plugins.module_utils.audit_host_checks import all_hits
from ansible_collections.driftguard.workers.plugins.module_utils.audit_rules import RULES
from ansible_collections.driftguard.workers.plugins.module_utils.audit_view import ServiceView
from ansible_collections.driftguard.workers.plugins.module_utils.compose_project import repository, workers_of
from ansible_collections.driftguard.workers.plugins.module_utils.compose_source import Place, Sources
from ansible_collections.driftguard.workers.plugins.module_utils.compose_variables import assignments, expand
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.secret_names import (
    is_secret_name,
    password_in_url,
    secret_in_command,
)
from support.modules import PROJECT


@pytest.mark.parametrize(("text", "expanded", "unset"), [
    ("plain", "plain", ()), ("$$A", "$A", ()), ("$A", "1", ()), ("${A}b", "1b", ()), ("${B:-x}", "x", ()),
    ("${EMPTY:-x}", "x", ()), ("${EMPTY-x}", "", ()), ("${B-${C:-y}}", "y", ()), ("${B}", "", ("B",)),
    ("${B:?say so}", "", ("B",)), ("${A:+yes}${B:+no}", "yes", ()), ("${B:-${C}}", "", ("C",)), ("${", "${", ()),
    ("$", "$", ()), ("$1", "$1", ()), ("${A", "${A", ()), ("${B:-" * 50 + "}" * 50, None, ()),
])
def test_variables_are_replaced_as_compose_does(text: str, expanded: str | None, unset: tuple[str, ...]) -> None:
    found = expand(text, {"A": "1", "EMPTY": ""})
    assert expanded is None or (found.text, found.unset) == (expanded, unset)


def test_env_files_are_read_with_lines() -> None:
    text = "# A=0\nA=1 # one\nexport B='x # y'\n\nC=\"two\nD=not one\n\"\nE: 5\nnonsense\n"
    assert list(assignments(text)) == [("A", "1", 2), ("B", "x # y", 3), ("C", "two", 5), ("E", "5", 8)]


@pytest.mark.parametrize(("name", "secret"), [
    ("DB_PASSWORD", True), ("API_TOKEN", True), ("STRIPE_SECRET", True), ("SIGNING_KEY", True), ("PASSWORD", True),
    ("SENTRY_DSN", True), ("AWS_SECRET_ACCESS_KEY", True), ("db_pass", True), ("PRIVATE_KEY", True),
    ("DB_PASSWORD_FILE", False), ("TOKEN_TTL", False), ("PUBLIC_KEY", False), ("SORT_KEY", False), ("MONKEY", False),
    ("COMPASS", False), ("PASSENGERS", False), ("KEYBOARD", False),
    ("LOG_LEVEL", False), ("PASSWORD_MIN_LENGTH", False),
])
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_passwords_in_texts() -> None:
    assert password_in_url("x amqp://u:p%40w@h/ y") == "p%40w"
    assert password_in_url("redis://:pw@h") == "pw"
    assert password_in_url("http://h:80/a@b") == ""
    assert secret_in_command(["x", "--db-password", "pw1"]) == "pw1"
    assert secret_in_command(["x", "--api-key=k", "--token-file", "f"]) == "k"
    assert secret_in_command(["x", "--token", "$TOKEN"]) == ""


def view(worker: bool = True, **raw: Any) -> ServiceView:
    return ServiceView("w", {"image": "a@sha256:0", **raw}, worker, {}, {})


def hits(rule: str, **raw: Any) -> list[Hit]:
    return [hit for hit in all_hits(view(**raw)) if hit.rule == rule]


@pytest.mark.parametrize(("rule", "raw", "count"), [
    ("image-latest", {"image": "a:latest"}, 1), ("image-latest", {"image": "r:5000/a"}, 0),
    ("image-untagged", {"image": "r:5000/a"}, 1), ("image-untagged", {"image": "", "build": {"context": "."}}, 1),
    ("image-tag", {"image": "r:5000/a:1"}, 1), ("image-tag", {"image": "a:${X}"}, 0),
    ("image-variable", {"image": "a:${X}"}, 1), ("image-variable", {"image": "$X"}, 1),
    ("image-tag", {"image": "a:1@sha256:0"}, 0), ("image-tag", {"image": "sha256:00"}, 0),
    ("git-sha-set", {"environment": ["GIT_SHA"]}, 1), ("git-sha-set", {"environment": {"GIT_SHA_X": 1}}, 0),
    ("git-sha-set", {"build": {"args": {"GIT_SHA": "x"}}}, 0),
    ("git-sha-argument", {"build": {"args": ["GIT_SHA"]}}, 1),
    ("expected-sha", {"environment": {"EXPECTED_GIT_SHA": "x"}}, 0),
    ("development-runner", {"command": "nodemon x.js"}, 1), ("development-runner", {"command": "node x.js"}, 0),
    ("development-runner", {"entrypoint": ["npx", "tsx"]}, 1),
    ("development-runner", {"command": "broken ' quote tsx"}, 1),
    ("development-runner", {"environment": {"NODE_OPTIONS": "--import=tsx"}}, 1),
    ("memory-limit", {"deploy": {"resources": {"limits": {"memory": "1G"}}}}, 0), ("memory-limit", {"deploy": None}, 1),
    ("restart-policy", {"restart": "always"}, 0), ("restart-policy", {"deploy": {"restart_policy": {}}}, 0),
    ("restart-policy", {"restart": "always", "deploy": {"restart_policy": {"condition": "none"}}}, 1),
    ("docker-socket", {"volumes": [{"type": "bind", "source": "/var/run", "target": "/x"}]}, 1),
    ("docker-socket", {"volumes": [{"type": "bind", "source": "/x/docker.sock", "target": "/x"}]}, 1),
    ("docker-socket", {"volumes": ["${S:-/var/run/docker.sock}:/s"]}, 1),
    ("docker-socket", {"volumes": [{"type": "bind", "source": "/srv/run", "target": "/x"}]}, 0),
    ("code-mount", {"volumes": [{"type": "bind", "source": "/s", "target": "/app"}]}, 1),
    ("code-mount", {"working_dir": "/w", "volumes": [{"type": "volume", "source": "v", "target": "/w/x"}]}, 1),
    ("code-mount", {"environment": {"PYTHONPATH": "/d"}, "tmpfs": "/d:size=1m"}, 1),
    ("code-mount", {"volumes": [{"type": "bind", "source": "/s", "target": "/data"}]}, 0),
    ("secret-in-clear", {"environment": {"A_KEY": "x"}}, 1), ("secret-in-clear", {"environment": {"A_KEY": "${K}"}}, 0),
    ("secret-in-clear", {"environment": {"A_KEY": ""}}, 0), ("secret-in-clear", {"environment": {"A_KEY": True}}, 0),
    ("secret-in-clear", {"environment": ["U=redis://:p@h"]}, 1),
    ("secret-in-environment", {"environment": ["U=redis://:${P}@h"]}, 1),
    ("secret-in-environment", {"environment": ["A_KEY"]}, 1),
    ("host-process-namespace", {"pid": "host", "ipc": "host", "userns_mode": "host"}, 3),
    ("healthcheck", {"healthcheck": {"test": ["NONE"]}}, 1), ("healthcheck", {"healthcheck": {"test": "x"}}, 0),
    ("log-rotation", {"logging": {"driver": "journald"}}, 0), ("log-rotation", {"logging": {"driver": "json-file"}}, 1),
    ("pull-policy", {"pull_policy": "never"}, 0), ("root-user", {"user": "0:0"}, 1), ("root-user", {"user": 1000}, 0),
    ("privileged", {"privileged": "true"}, 1), ("privileged", {"privileged": False}, 0),
    ("cap-add", {"cap_add": ["A", "B"]}, 2), ("unconfined", {"security_opt": ["apparmor=unconfined"]}, 1),
])
def test_rules(rule: str, raw: dict[str, Any], count: int) -> None:
    assert len(hits(rule, **raw)) == count


def test_other_services_are_spared_rules_for_workers() -> None:
    body = {"command": "nodemon", "volumes": [{"type": "bind", "source": "/s", "target": "/app"}], "privileged": True}
    assert {hit.rule for hit in all_hits(view(False, **body))} & {"development-runner", "code-mount", "privileged"} == {
        "privileged"}


def test_workers_are_what_is_built_or_shares_its_image() -> None:
    built = {
        "a": {"build": {}, "image": "r:5000/x/w:1"}, "b": {"image": "r:5000/x/w@sha256:0"}, "c": {"image": "redis:7"}}
    assert workers_of(built) == ["a", "b"]
    assert workers_of({"a": {"image": "x/y:${T:-1}"}, "c": {"image": "bitnami/redis:7"}}) == ["a"]
    assert workers_of(built, ["c"]) == ["c"]
    with pytest.raises(DriftguardError, match="mend the names"):
        workers_of(built, ["d"])


def test_repositories() -> None:
    assert [repository(image) for image in ("a", "a:1", "r:5000/a", "r:5000/a:1@sha256:0", "a:${T}", "a${T}")] == [
        "a", "a", "r:5000/a", "r:5000/a", "a", "a"]


FILE = """x-a: &a
  restart: "no"
x-b: &b {<<: *a, init: true}
services:
  w:
    <<: [*b]
    image: x
    environment:
      - A=1
      - B
    volumes:
      - ./x:/x/:ro
      - {type: bind, source: /y, target: /y}
"""


def sources(directory: Path, **files: str) -> Sources:
    for name, text in files.items():
        (directory / f"{name}.yml").write_text(text)
    return Sources.load([directory / f"{name}.yml" for name in files], directory, {})


@pytest.mark.parametrize(("path", "line"), [
    ((), 5), (("restart",), 2), (("init",), 3), (("image",), 7), (("environment", "A"), 9), (("environment", "B"), 10),
    (("volumes", "/x"), 12), (("volumes", "/y"), 13), (("gone",), 5), (("environment", "C"), 5),
])
def test_lines_are_found_through_merges(tmp_path: Path, path: tuple[str, ...], line: int) -> None:
    assert sources(tmp_path, c=FILE).place("w", path) == Place(str(tmp_path / "c.yml"), line)


def test_the_last_file_that_says_so_is_named_unless_it_resets(tmp_path: Path) -> None:
    two = sources(
        tmp_path, a=FILE, b="services:\n  w:\n    image: y\n    init: !reset null\n    environment: {A: 2}\n")
    assert [(Path(place.file).stem, place.line) for place in (
        two.place("w", ("image",)), two.place("w", ("init",)), two.place("w", ("environment", "A")),
        two.place("w", ("environment", "B")), two.place("w", ())) if place] == [
        ("b", 3), ("a", 3), ("b", 5), ("a", 10), ("a", 5)]


def test_a_service_that_nobody_defines_here_has_no_line(tmp_path: Path) -> None:
    assert sources(tmp_path, c=FILE).place("other", ("image",)) == Place(str(tmp_path / "c.yml"), None)
    assert sources(tmp_path, c=FILE, d=FILE).place("other", ()) is None


def test_the_documentation_has_every_rule_with_its_level() -> None:
    text = (PROJECT / "docs" / "adopting.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z-]+)` \| (error|warning|note) \|", text, re.MULTILINE))
    assert documented == {name: rule.level for name, rule in RULES.items()}
