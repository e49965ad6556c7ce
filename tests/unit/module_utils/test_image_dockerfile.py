# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every image that a Dockerfile builds upon is found and must be pinned, however the line is written."""

from __future__ import annotations

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.image_dockerfile import Bases, bases, parse, pinned
from hypothesis import given
from hypothesis import strategies as st

D = "sha256:" + "d" * 64
PY = f"python:3.11@{D}"
NODE = f"registry:5000/node@{'sha256:' + 'e' * 64}"
LOCAL = "driftguard.local/base:" + "1" * 64


def found(text: str, target: str | None = None, **given_args: str) -> Bases:
    return bases(parse(text), given_args, target)


def references(text: str, **given_args: str) -> set[str]:
    return {image.reference for image in found(text, **given_args).images}


@pytest.mark.parametrize(("reference", "name", "digest", "local"), [
    (PY, "python:3.11", D, False),
    (f"python@{D}", "python", D, False),
    (NODE, "registry:5000/node", "sha256:" + "e" * 64, False),
    (LOCAL, "driftguard.local/base", "sha256:" + "1" * 64, True),
])
def test_references_that_name_content(reference: str, name: str, digest: str, local: bool) -> None:
    image = pinned(reference)
    assert image is not None
    assert (image.name, image.digest, image.local) == (name, digest, local)


@pytest.mark.parametrize("reference", [
    "", "python", "python:latest", "python:3.11", "python@sha256:short", f"python@{D[:-1]}", f"@{D}", f"python@{D}x",
    f"python@{D}\n", "python:" + "1" * 63, "-x:" + "1" * 64, f"a b@{D}", "python:" + "G" * 64,
])
def test_references_that_do_not(reference: str) -> None:
    assert pinned(reference) is None


@pytest.mark.parametrize("text", [
    f"FROM {PY}", f"from {PY} as builder", f"FROM --platform=linux/amd64 {PY} AS x", f"  FROM   {PY}  ",
    f"# comment\n\nFROM {PY}\nRUN true", f"FROM \\\n {PY}", f"FROM \\\n# comment\n\n  {PY} \\\n  AS x",
    f"# escape=`\nFROM `\n  {PY}", f"# syntax=docker/dockerfile:1\n# escape=`\nFROM `\n{PY}",
    f"ARG V=3.11\nFROM python:$V@{D}", f"ARG V\nFROM python:${{V:-3.11}}@{D}", f'ARG I="{PY}"\nFROM $I',
    f"ARG A=python B=3.11\nARG I=$A:${{B}}@{D}\nFROM $I", f"FROM\t{PY}",
    f"ARG V=\nFROM python:${{V:-3.11}}@{D}", f"FROM {PY}\r\nRUN true\r\n",
    f"ARG V=x\nFROM python:3.11${{V:+@{D}}}", f"ARG V\nFROM python:3.11@{D}${{V+x}}",
])
def test_one_pinned_image_in_every_spelling(text: str) -> None:
    assert references(text) == {PY}


@pytest.mark.parametrize(("text", "line", "shown"), [
    ("FROM python:3.11", 1, "FROM python:3.11"), ("FROM python", 1, "FROM python"),
    (f"FROM {PY} AS a\nFROM node:latest", 2, "FROM node:latest"),
    ("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}", 2, "which is '' here"), ("FROM $NEVER_DECLARED", 1, "which is '' here"),
    ("ARG B=python:3.11\nFROM $B", 2, "which is 'python:3.11' here"),
    (f"FROM {PY}\nCOPY --from=nginx:1 /a /b", 2, "from= nginx:1"),
    (f"FROM {PY}\nCOPY --chown=1 --from=nginx:1 /a /b", 2, "from= nginx:1"),
    (f"FROM {PY}\nADD --from=nginx:1 /a /b", 2, "from= nginx:1"),
    (f"FROM {PY}\nRUN --network=none --mount=type=bind,from=nginx:1,target=/x true", 2, "from= nginx:1"),
    (f"FROM {PY}\nCOPY --from=7 /a /b", 2, "from= 7"),
    (f"FROM later\nFROM {PY} AS later", 1, "FROM later"),
    (f"FROM {PY}\nRUN <<EOF\nFROM inside\nEOF\nFROM outside", 5, "FROM outside"),
    (f"FROM {PY}\nRUN cat <<'A' <<-B\nx\nA\ny\n\t\tB\nFROM outside", 7, "FROM outside"),
    (f"FROM {PY}\n# FROM comment\nRUN echo \\\n  x\nFROM outside", 5, "FROM outside"),
])
def test_an_image_that_is_not_pinned_is_refused_with_its_line(text: str, line: int, shown: str) -> None:
    with pytest.raises(DriftguardError) as caught:
        found(text)
    assert caught.value.subject == f"Dockerfile, line {line}"
    assert shown in caught.value.found
    assert "BASE_IMAGE" in caught.value.remedy


@pytest.mark.parametrize(("text", "expected"), [
    ("", "FROM"), ("RUN true", "FROM"), ("FROM", "FROM image"), (f"FROM {PY} AS", "FROM image"),
    (f"FROM {PY} a b", "FROM image"), ("ARG A=\"x\nFROM $A", "ARG NAME=value"), ("FROM ${A#x}", "${NAME}"),
    ("FROM ${A:-${B}}", "${NAME}"), ("FROM $", "${NAME}"), ("FROM a\nFROM \\", "FROM image"),
])
def test_what_cannot_be_read_is_an_error(text: str, expected: str) -> None:
    with pytest.raises(DriftguardError) as caught:
        found(text)
    assert expected in caught.value.expected


@pytest.mark.parametrize("first", ["# hi", "# a=b", "", "ARG X"])
def test_a_directive_after_another_line_is_only_a_comment(first: str) -> None:
    # so the backslash still continues the line, and there is no second FROM
    assert references(f"{first}\n# escape=`\nFROM {PY}\nRUN dir C:\\\nFROM hidden") == {PY}


def test_a_heredoc_hides_what_looks_like_an_instruction() -> None:
    assert references(f"FROM {PY}\nRUN <<EOF bash\nFROM evil\nCOPY --from=evil a b\nEOF\n") == {PY}


def test_stages_and_indexes_need_no_digest() -> None:
    copies = "COPY --from=build /a /a\nCOPY --from=0 /b /b\nRUN --mount=from=BUILD true"
    assert references(f"FROM {PY} AS Build\nFROM scratch\n{copies}") == {PY}


def test_pinned_images_of_copies_are_found_too() -> None:
    assert references(f"FROM {PY}\nCOPY --from={NODE} /a /b") == {PY, NODE}


MULTI = f"""ARG BASE_IMAGE
ARG EXTRA={NODE}
FROM ${{BASE_IMAGE}} AS base
FROM $EXTRA AS tools
FROM base AS app
COPY --from=tools /x /x
FROM scratch AS export
"""


@pytest.mark.parametrize(("target", "final"), [
    ("app", LOCAL), ("APP", LOCAL), ("base", LOCAL), ("tools", NODE), ("export", None), (None, None)])
def test_the_base_of_a_target_is_followed_through_its_stages(target: str | None, final: str | None) -> None:
    answer = found(MULTI, target, BASE_IMAGE=LOCAL)
    assert (answer.final.reference if answer.final else None) == final
    assert {image.reference for image in answer.images} == {LOCAL, NODE}


def test_a_build_argument_wins_over_the_default() -> None:
    assert references(f"ARG B={PY}\nFROM $B", B=NODE) == {NODE}


def test_an_argument_declared_in_a_stage_does_not_count_for_from() -> None:
    with pytest.raises(DriftguardError, match="line 3"):
        found(f"FROM {PY}\nARG B={NODE}\nFROM $B", B=NODE)


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(DriftguardError, match=r"stage named 'nope'.*base, tools, app, export"):
        found(MULTI, "nope", BASE_IMAGE=LOCAL)


WORDS = st.lists(st.sampled_from([
    "FROM", "ARG", "COPY", "RUN", "--from=", "--mount=from=", "${A:-", "}", "$A", "<<EOF", "EOF", "\\\n", "\n", " ",
    "#", "escape=", "`", '"', "'", "AS", PY, "a", "=", "\t", "\0", "\x85"]), max_size=30)


@given(WORDS)
def test_no_text_at_all_makes_a_traceback_or_an_unpinned_image(words: list[str]) -> None:
    try:
        answer = found("".join(words))
    except DriftguardError:
        return
    assert all("@sha256:" in image.reference for image in answer.images)
