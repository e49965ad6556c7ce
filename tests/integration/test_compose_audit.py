# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_compose_audit on real files, read by the real Compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.audit_rules import LEVELS, RULES
from ansible_collections.driftguard.workers.plugins.module_utils.compose_audit import audit
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.compose_cases import CASES, IN_CLEAR, Case
from support.modules import PROJECT, ModuleRun, run_module
from support.sarif_schema import checked_sarif


def audited(*files: Any, **options: Any) -> ModuleRun:
    return run_module("worker_compose_audit", files=[str(file) for file in files], **{"fail_on": "never", **options})


def within(*files: Any, **options: Any) -> dict[str, Any]:
    """Values of an audit in this process, which takes half the time."""
    given = {"project_directory": None, "env_files": [], "services": [], "format": "text", "relative_to": None,
             "dest": None, "fail_on": "never", **options}
    return audit({**given, "files": [str(file) for file in files]}, False).values


def written(directory: Path, content: str | bytes, name: str = "compose.yml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_exactly_the_planted_defects_are_found_at_their_lines(case: Case) -> None:
    run = audited(*case.paths).must_pass()
    assert Counter((one["file"], one["line"], one["rule"]) for one in run["findings"]) == case.planted()
    assert sorted(name for name, worker in run["services"].items() if worker) == sorted(case.services)
    assert IN_CLEAR not in run.output


def test_the_three_forms_say_the_same(case: Case) -> None:
    text, plain, sarif = (within(*case.paths, format=form) for form in ("text", "json", "sarif"))
    expected = [(one["file"], one["line"], one["rule"], one["level"]) for one in text["findings"]]
    assert [line.split(" [")[0] for line in text["report"].splitlines()[:-1:2]] == [
        f"{file}:{line}: {level} {rule}" for file, line, rule, level in expected]
    document = json.loads(plain["report"])
    assert [(one["file"], one["line"], one["rule"], one["level"]) for one in document["findings"]] == expected
    assert document["findings"] == plain["findings"]
    assert [_of_sarif(one) for one in checked_sarif(json.loads(sarif["report"]))["runs"][0]["results"]] == expected


def _of_sarif(result: dict[str, Any]) -> tuple[str, int, str, str]:
    place = result["locations"][0]["physicalLocation"]
    return place["artifactLocation"]["uri"], place["region"]["startLine"], result["ruleId"], result["level"]


def test_every_rule_is_planted_somewhere() -> None:
    assert {rule for case in CASES.values() for _file, _line, rule in case.planted()} == set(RULES)


def test_it_fails_from_the_level_that_is_asked_for_on(tmp_path: Path) -> None:
    hardened = written(tmp_path, FLAWLESS)
    audited(hardened, fail_on="note").must_pass()
    noted = written(tmp_path, FLAWLESS.replace("    init: true\n", ""), "noted.yml")
    audited(noted, fail_on="warning").must_pass()
    failed = audited(noted, fail_on="note").must_fail("1: noted.yml:2 hardening [w]")
    assert failed["summary"] == {"error": 0, "warning": 0, "note": 1}
    bad = written(tmp_path, FLAWLESS.replace(f"@{DIGEST}", ":1.2"), "bad.yml")
    assert len(run_module("worker_compose_audit", files=[str(bad)]).must_fail("image-tag")["findings"]) == 1


DIGEST = "sha256:" + "0123456789abcdef" * 4
FLAWLESS = f"""services:
  w:
    image: shop/worker@{DIGEST}
    restart: always
    init: true
    read_only: true
    pull_policy: never
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    mem_limit: 64m
    pids_limit: 10
    stop_grace_period: 30s
    command: [node, dist/worker.js]
    environment: {{EXPECTED_GIT_SHA: 0123}}
    healthcheck: {{test: [CMD, "true"]}}
    logging: {{driver: local}}
"""


def test_errors_of_services_that_are_no_workers_are_warnings() -> None:
    case = CASES["anchors"]
    levels = {(one["service"], one["rule"]): one["level"] for one in audited(*case.paths)["findings"]}
    assert (levels["redis", "image-tag"], levels["cleaner", "image-untagged"]) == ("warning", "error")
    named = audited(*case.paths, services=["redis"])["findings"]
    assert ("redis", "image-tag", "error") in {(one["service"], one["rule"], one["level"]) for one in named}
    audited(*case.paths, services=["rediss"]).must_fail("rediss", "mend the names")


def test_variables_have_the_values_of_env_files_and_never_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = written(tmp_path, "services: {w: {build: ., image: 'x:${TAG:-latest}'}}")
    monkeypatch.setenv("TAG", "1.0")
    assert _rules(audited(file)) >= {"image-latest"}
    values = written(tmp_path, "TAG=1.0\n", "values.env")
    assert "image-latest" not in _rules(audited(file, env_files=[str(values)]))
    written(tmp_path, "TAG=2.0\n", ".env")
    assert "image-latest" not in _rules(audited(file))


def _rules(run: ModuleRun) -> set[str]:
    return {one["rule"] for one in run.must_pass()["findings"]}


def test_check_run_check_run_of_a_report(tmp_path: Path) -> None:
    case, dest = CASES["pipeline"], tmp_path / "report.sarif"
    options: dict[str, Any] = {"format": "sarif", "dest": str(dest), "fail_on": "error"}
    changed = []
    for check in (True, False, True, False):
        run = run_module("worker_compose_audit", check=check, files=case.paths, **options).must_fail("image-latest")
        changed.append(run.changed)
        assert dest.exists() is (changed != [True])
    assert changed == [True, True, False, False]
    checked_sarif(json.loads(dest.read_text()))
    assert [path.name for path in tmp_path.iterdir()] == ["report.sarif"]


def test_a_report_that_cant_be_written_says_so(tmp_path: Path) -> None:
    audited(*CASES["swarm"].paths, dest=str(tmp_path / "none" / "x")).must_fail("to write it")
    audited(*CASES["swarm"].paths, dest=str(tmp_path)).must_fail(str(tmp_path))


def test_fingerprints_survive_moved_lines_and_file_names_are_relative(tmp_path: Path) -> None:
    case = CASES["pipeline"]
    here = {one["fingerprint"] for one in audited(*case.paths)["findings"]}
    moved = written(tmp_path, "# a line\n\n" + Path(case.paths[0]).read_text(), case.files[0])
    assert {one["fingerprint"] for one in audited(moved)["findings"]} == here
    run = audited(moved, relative_to=str(tmp_path.parent), format="sarif")
    assert {one["file"] for one in run["findings"]} == {f"{tmp_path.name}/{case.files[0]}"}
    elsewhere = audited(moved, relative_to=str(tmp_path / "x"), format="sarif")
    assert checked_sarif(json.loads(elsewhere["report"]))["runs"][0]["results"][0]["locations"][0]["physicalLocation"][
        "artifactLocation"]["uri"] == f"file://{moved}"


def test_without_pyyaml_there_is_no_line_rather_than_a_wrong_one(tmp_path: Path) -> None:
    written(tmp_path, "raise ImportError('hidden')\n", "hidden/yaml.py")
    case = CASES["anchors"]
    program = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.driftguard.workers.plugins.module_utils.compose_audit import audit\n"
        "options = dict(project_directory=None, env_files=[], services=[], format='json', relative_to=None,\n"
        "               dest=None, fail_on='never', files=sys.argv[2:])\n"
        "print(json.dumps(audit(options, True).values))\n")
    found = json.loads(_python(program, str(tmp_path / "hidden"), *case.paths))
    assert found["lines_known"] is False
    assert {one["line"] for one in found["findings"]} == {None}
    assert Counter(one["rule"] for one in found["findings"]) == Counter(
        rule for (_file, _line, rule), count in case.planted().items() for _one in range(count))


def _python(program: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / ".collections")}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


LAUGHS = "x-0: &x0 [ha]\n" + "".join(
    f"x-{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 12)) + "services: {w: {image: x}}\n"
BROKEN: dict[str, tuple[str | bytes, str]] = {
    "billion laughs": (LAUGHS, "once anchors are expanded"),
    "an anchor in itself": ("x-a: &a [*a]\nservices: {w: {image: x}}\n", "anchor"),
    "a merge of itself": ("services: {w: &w {image: x, <<: *w}}\n", "anchor"),
    "deep": ("x-a: " + "[" * 3000 + "]" * 3000 + "\nservices: {w: {image: x}}\n", "levels"),
    "huge": ("# " + "x" * 300_000, "at most 262144 bytes"),
    "not UTF-8": (b"services: {w: {image: \xff\xfe}}", "UTF-8"),
    "NUL": (b"services: \0", "YAML"),
    "two documents": ("services: {w: {image: x}}\n---\na: b\n", "one YAML document"),
    "a tab": ("services:\n\tw:\n", "line 2"),
    "unclosed": ("services: {w: [", "YAML"),
    "empty": ("", "docker compose config"),
    "a list": ("- a\n", "docker compose config"),
    "an unknown key": ("services: {w: {imaeg: x}}", "imaeg"),
    "a key twice": ("services:\n  w: {image: x}\n  w: {image: y}\n", "docker compose config"),
    "no image": ("services: {w: {command: x}}", ""),
    "extends nobody": ("services: {w: {extends: nobody, image: x}}", "docker compose config"),
    "extends itself": ("services: {w: {extends: w, image: x}}", "docker compose config"),
    "extends a missing file": ("services: {w: {extends: {file: gone.yml, service: w}}}", "gone.yml"),
    "extends a home": ("services: {w: {extends: {file: '~nobody9/x', service: w}}}", "docker compose config"),
    "extends a name that can't be": (
        "services: {w: {extends: {file: \"a\\0b\", service: w}}}", "docker compose config"),
    "extends a device": ("services: {w: {extends: {file: /dev/zero, service: w}}}", "a regular file"),
    "includes itself": ("include: [compose.yml]\nservices: {w: {image: x}}", "docker compose config"),
    "thousands of services": (
        "x: &x {image: x}\nservices:\n".replace("x:", "x-a:", 1) + "".join(f"  s{n}: *x\n" for n in range(4000)),
        "at most 500 services"),
    "includes the net": ("include: ['https://example.com/x.git']\nservices: {w: {image: x}}", "a file on this host"),
    "secret in an error": ("services: {w: {image: x, mem_limit: {API_TOKEN: token-hunter2}}}", "docker compose config"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_a_remedy_in_little_time(tmp_path: Path, name: str) -> None:
    content, said = BROKEN[name]
    began = time.monotonic()
    run = audited(written(tmp_path, content))
    assert time.monotonic() - began < 10
    assert "Traceback" not in run.output
    assert IN_CLEAR not in run.output
    if said:
        run.must_fail(said)
        assert len(run["msg"]) < 2000


@pytest.mark.parametrize("name", ["directory", "missing", "pipe", "unreadable name"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x"
    if name == "directory":
        path.mkdir()
    elif name == "pipe":
        os.mkfifo(path)
    elif name == "unreadable name":
        path = tmp_path / ("x" * 300)
    audited(path).must_fail("remedy: name another file, or mend this one")
    run_module("worker_compose_audit", files=[]).must_fail("at least one compose file")


def test_an_included_project_may_begin_elsewhere(tmp_path: Path) -> None:
    written(tmp_path, "services:\n  w:\n    build: .\n    privileged: true\n", "common.yml")
    written(tmp_path, "services:\n  w: {extends: {file: common.yml, service: w}}\n", "sub/part.yml")
    for start, named in (("{path: sub/part.yml, project_directory: .}", ""), ("sub/part.yml", "x")):
        main = written(tmp_path, f"include: [{start}]\nservices: {{v: {{image: x}}}}\n")
        if named:
            shutil.copy(tmp_path / "common.yml", tmp_path / "sub" / "common.yml")
        found = {(one["rule"], one["file"], one["line"]) for one in within(main)["findings"]}
        assert ("privileged", "sub/common.yml" if named else "common.yml", 4) in found


def test_the_playbook_shows_the_report_and_fails_as_asked(tmp_path: Path) -> None:
    shutil.copytree(CASES["pipeline"].directory, tmp_path / "app")
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "PWD": str(tmp_path), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(PROJECT / "playbooks" / "audit.yml"), "-e",
               "audit_compose=app/docker-compose.workers.yml", "-e", "audit_format=sarif", "-e", "audit_dest=x.sarif"]
    for more, status in ((["-e", "audit_fail_on=never"], 0), ([], 2)):
        done = subprocess.run(
            [*command, *more], cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False)
        assert done.returncode == status, done.stdout
        assert "expected no finding of level error" in done.stdout + done.stderr or not status
    document = checked_sarif(json.loads((tmp_path / "x.sarif").read_text()))
    uri = document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "app/docker-compose.workers.yml"


def test_a_project_of_too_many_files_is_refused(tmp_path: Path) -> None:
    for number in range(70):
        written(tmp_path, f"services: {{w: {{extends: {{file: c{number + 1}.yml, service: w}}}}}}", f"c{number}.yml")
    audited(tmp_path / "c0.yml").must_fail("a project of at most 64 files")


def test_names_cant_draw_on_a_terminal(tmp_path: Path) -> None:
    shutil.copy(CASES["anchors"].paths[0], tmp_path / "a\x1b[31m.yml")
    run = audited(tmp_path / "a\x1b[31m.yml", format="text").must_pass()
    assert "\x1b" not in run["report"]


YAML_BITS = st.sampled_from([
    "services:", "  w:", "    image: ", "x:latest", "${A:-", "}", "\n", "    <<: *a", "&a ", "*a", "[", "]", "{", "}",
    "    environment:", "      - GIT_SHA=1", "      A: ", "extends: w", "include: [x]", "!reset null", "- ", ": ", "|",
    "'", '"', "#", "\t", "é", "    volumes: ['/a:/b']", "    env_file: x.env", "    command: 'a \"b'"])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(bits=st.lists(YAML_BITS, max_size=25), start=st.sampled_from(["", "services:\n  w:\n    image: x\n"]))
def test_any_text_is_audited_or_refused_helpfully(tmp_path: Path, bits: list[str], start: str) -> None:
    values, error = _outcome(written(tmp_path, start + "".join(bits)))
    if error is not None:
        assert all((error.subject, error.expected, error.found, error.remedy))
        assert str(error).isprintable()
    assert all(one["level"] in LEVELS for one in values.get("findings", []))


def _outcome(file: Path) -> tuple[dict[str, Any], DriftguardError | None]:
    try:
        return within(file), None
    except DriftguardError as error:
        return {}, error
