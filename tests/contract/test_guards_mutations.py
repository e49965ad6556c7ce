# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cases see each rule go: a guard with one piece taken out fails some of them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import pytest
from contract.guard_cases import CASES, complaints, copy_guards, needs_other_user
from contract.guard_programs import Guard, Workshop, all_guards, open_workshop, run_case

PY, SH = "version_guard.py", "version_guard.sh"


@dataclass(frozen=True)
class Mutation:
    """One piece of a guard, what stands there instead, and the rule whose cases have to notice."""

    label: str
    file: str
    old: str
    new: str
    rule: str


def mutation(rule: str, file: str, label: str, old: str, new: str = "") -> Mutation:
    return Mutation(label, file, old, new, rule)


MUTATIONS = [
    mutation("runner", PY, "no runner rule", "    _check_runner(report, environment, command)\n"),
    mutation("runner", PY, "no option variables", 'OPTION_VARIABLES = ("NODE_OPTIONS",)', "OPTION_VARIABLES = ()"),
    mutation("runner", PY, "any part of a runner", "words.issuperset(runner", "not words.isdisjoint(runner"),
    mutation("sha", PY, "no SHA rule", "if sha is None or not _is_hex(sha, 40):", "if False:"),
    mutation("sha", PY, "upper case is hexadecimal", 'HEX = "0123456789abcdef"', 'HEX = "0123456789abcdefABCDEF"'),
    mutation("image", PY, "no override rule", "elif image and image[1] != sha:", "elif False:"),
    mutation("image", PY, "a broken image file passes", "elif problem and not unstamped:", "elif False:"),
    mutation("image", PY, "a missing image file passes",
             'problem == "missing" and directory is None', 'problem == "missing"'),
    mutation("image", PY, "duplicate keys pass", " and key not in found"),
    mutation("image", PY, "pipes are opened", "if os.path.lexists(path) and not os.path.isfile(path):", "if False:"),
    mutation("expected", PY, "no mismatch rule", "if expected and expected != sha:", "if False:"),
    mutation("expected", PY, "a prefix is enough", "if expected and expected != sha:",
             "if expected and not sha.startswith(expected):"),
    mutation("record", PY, "no record rule", "_check_record(report, directory, ", "str("),
    mutation("record", PY, "every release is allowed", "elif own not in allowed:", "elif False:"),
    mutation("record", PY, "a broken record passes", "    if allowed is None:", "    if False:"),
    mutation("record", PY, "only the commit counts", 'own not in allowed', 'own[-40:] not in str(allowed)'),
    mutation("record", PY, "only the release counts", 'own not in allowed', 'own[:25] not in str(allowed)'),
    mutation("record", PY, "settled may allow two",
             '(phase == "settled" and allowed == [target])', 'phase == "settled"'),
    mutation("enforcement", PY, "a record doesn't enforce",
             "Report(production or directory is not None)", "Report(production)"),
    mutation("sha", PY, "WORKER_ENV is not looked at", '(environment.get("WORKER_ENV"), ', "("),
    mutation("pass", PY, "nothing is sanitised", "    text = \"\"\n", "    return value\n    text = \"\"\n"),
    mutation("runner", SH, "no runner rule", '    __dg_check_runner "$@" || :\n'),
    mutation("runner", SH, "no option variables", '"${NODE_OPTIONS-}" || return 0', "'' || return 0"),
    mutation("sha", SH, "no SHA rule", "    if __dg_check_sha && ", "    if "),
    mutation("sha", SH, "upper case is hexadecimal",
             "__dg_hex='[0123456789abcdef]'", "__dg_hex='[0123456789abcdefABCDEF]'"),
    mutation("image", SH, "no override rule", '[ "$__dg_revision" != "$GIT_SHA" ]', "false"),
    mutation("image", SH, "a malformed image file passes", "! __dg_read_image", "! : __dg_read_image"),
    mutation("image", SH, "a missing image file passes", '[ "$__dg_problem" = missing ] && [ -z "$__dg_mounted" ]',
             '[ "$__dg_problem" = missing ]'),
    mutation("image", SH, "duplicate keys pass", '    case $__dg_seen in *" $__dg_key "*) return 1 ;; esac\n'
             '    __dg_seen="$__dg_seen$__dg_key "\n    case', '    __dg_seen="$__dg_seen$__dg_key "\n    case'),
    mutation("expected", SH, "no mismatch rule", " && __dg_check_expected; then", "; then"),
    mutation("expected", SH, "expected is a pattern", "'' | \"$GIT_SHA\") return 0", "'' | [!0-9a-f]*) return 0"),
    mutation("record", SH, "no record rule", "        __dg_check_record\n", "        :\n"),
    mutation("record", SH, "every release is allowed",
             '*" or $__dg_release:$__dg_revision or "*) return 0', "*) return 0"),
    mutation("record", SH, "a malformed record passes", "! __dg_read_record", "! : __dg_read_record"),
    mutation("record", SH, "only the commit counts", "$__dg_release:$__dg_revision or ", "*:$__dg_revision or "),
    mutation("record", SH, "settled may allow two", '|| [ "$__dg_allowed" = " or $__dg_target" ] || return 1', "|| :"),
    mutation("enforcement", SH, "a record doesn't enforce", "__dg_enforced=$__dg_mounted\n", "__dg_enforced=\n"),
    mutation("sha", SH, "WORKER_ENV is not looked at", "case ${WORKER_ENV-} in production", "case x in production"),
    mutation("pass", SH, "nothing is sanitised", "    *[!$__dg_plain]*) ;;\n    *) [", "    *) ["),
]


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


@pytest.mark.parametrize("mutated", MUTATIONS, ids=[f"{m.file[-2:]}: {m.label}" for m in MUTATIONS])
def test_cases_notice(mutated: Mutation, shop: Workshop) -> None:
    place = shop.place()
    copy_guards(place)
    text = (place / mutated.file).read_text(encoding="utf-8")
    assert text.count(mutated.old) == 1, "the guard has changed: this mutation changes nothing any more"
    (place / mutated.file).write_text(text.replace(mutated.old, mutated.new), encoding="utf-8")
    guard = next(guard for guard in all_guards() if guard.file == mutated.file)
    assert any(_notices(case, guard, shop, place) for case in CASES if case["rule"] == mutated.rule)


def test_shortcut_of_the_python_guard_changes_no_verdict(shop: Workshop) -> None:
    """A record as a deployment writes it is read without json: with json alone, every case ends the same."""
    place = shop.place()
    copy_guards(place)
    text = (place / PY).read_text(encoding="utf-8")
    assert text.count("_as_deployed(text) or ") == 1
    (place / PY).write_text(text.replace("_as_deployed(text) or ", ""), encoding="utf-8")
    guard = next(guard for guard in all_guards() if guard.file == PY)
    assert [case["name"] for case in CASES if "record" in case and _notices(case, guard, shop, place)] == []


def _notices(case: dict[str, Any], guard: Guard, shop: Workshop, place: Path) -> bool:
    if needs_other_user(case):
        return False
    try:
        return bool(complaints(case, run_case(guard, case, shop, place)))
    except subprocess.TimeoutExpired:
        return True
