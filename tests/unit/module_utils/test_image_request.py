# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options become a request, or an error that names the option."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.image_request import Request, size
from hypothesis import given
from hypothesis import strategies as st

LOCAL = "driftguard.local/base:" + "1" * 64


def options(**changed: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "fleet": "demo", "source": {"path": "/app", "revision": "HEAD", "context": ".", "dockerfile": "Dockerfile"},
        "repository": None, "base": None, "build_args": {}, "secrets": [], "variants": {"base": {}}, "latest": False,
        "push": False, "builder": "auto", "timeout": 1800}
    return {**plain, **changed}


def source(**changed: str) -> dict[str, Any]:
    return {**options()["source"], **changed}


def base(**changed: Any) -> dict[str, Any]:
    return {"reference": LOCAL, "name": None, "arg": "BASE_IMAGE", **changed}


def test_the_defaults() -> None:
    request = Request.from_options(options())
    assert {name: spec.repository for name, spec in request.variants.items()} == {"base": "demo-worker"}


def test_variants_share_build_arguments_and_have_names_of_their_own() -> None:
    request = Request.from_options(options(
        repository="registry:5000/shop/w", build_args={"A": 1, "B": True, "C": "x"},
        variants={"ocr": {"build_args": {"B": False}, "target": "app"}, "base": None}))
    assert list(request.variants) == ["base", "ocr"]
    assert request.variants["ocr"].repository == "registry:5000/shop/w-ocr"
    assert request.variants["ocr"].build_args == {"A": "1", "B": "false", "C": "x"}
    assert request.variants["base"].build_args == {"A": "1", "B": "true", "C": "x"}
    assert request.variants["ocr"].target == "app"


def test_checks_are_a_set() -> None:
    spec = {"must_contain": ["b", "/a", "b"], "must_not_contain": ["g++"], "max_size": "300MB"}
    checks = Request.from_options(options(variants={"base": spec})).variants["base"].checks
    assert (checks.must_contain, checks.must_not_contain, checks.max_size) == (("/a", "b"), ("g++",), 300_000_000)


@pytest.mark.parametrize(("text", "number"), [
    ("300MB", 300_000_000), ("300M", 300_000_000), ("1.5GB", 1_500_000_000), ("1GiB", 2**30), ("12 kB", 12_000),
    ("0.5 MiB", 2**19), (1000, 1000), ("7", 7), ("7b", 7)])
def test_sizes(text: Any, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "big", "-1MB", "1TB", "1e9", None, True, 1.5, [], "1 0MB", "1MB\n1"])
def test_what_is_no_size(text: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        size(text)


def test_the_base_has_the_references_name_unless_it_is_given_one() -> None:
    plain = Request.from_options(options(base=base())).base
    named = Request.from_options(options(base=base(name="debian"))).base
    assert plain is not None
    assert named is not None
    assert (plain.name, named.name) == ("driftguard.local/base", "debian")


def test_only_check_mode_takes_a_base_that_is_still_to_be_made() -> None:
    made = Request.from_options(options(base=base(reference="")), check_mode=True).base
    assert made is not None
    assert not made.known
    with pytest.raises(DriftguardError, match=r"base\.reference"):
        Request.from_options(options(base=base(reference="")))


@pytest.mark.parametrize(("changed", "named"), [
    ({"fleet": "Demo"}, "fleet"), ({"fleet": "x\n"}, "fleet"),
    ({"source": source(context="/etc")}, "source.context"), ({"source": source(context="a/../..")}, "source.context"),
    ({"source": source(context="")}, "source.context"), ({"source": source(dockerfile="a\nb")}, "source.dockerfile"),
    ({"repository": "Demo"}, "repository"), ({"repository": "demo:latest"}, "repository"),
    ({"repository": "demo@sha256:" + "1" * 64}, "repository"), ({"push": True}, "repository"),
    ({"push": True, "repository": "shop/worker"}, "repository"),
    ({"base": base(reference="python:3.11")}, "base.reference"),
    ({"base": base(reference="python:latest")}, "base.reference"),
    ({"base": base(arg="GIT_SHA")}, "base.arg"), ({"base": base(arg="a-b")}, "base.arg"),
    ({"base": base(name='a"b')}, "base.name"),
    ({"build_args": {"GIT_SHA": "x"}}, "build_args.GIT_SHA"),
    ({"build_args": {"BUILD_DATE": "x"}}, "build_args.BUILD_DATE"),
    ({"base": base(), "build_args": {"BASE_IMAGE": "x"}}, "build_args.BASE_IMAGE"),
    ({"build_args": {"A B": "x"}}, "build_args"), ({"build_args": {"A": ["x"]}}, "build_args.A"),
    ({"build_args": {"A": "x\0"}}, "build_args.A"), ({"build_args": {"A": None}}, "build_args.A"),
    ({"secrets": [{"id": "a b", "src": "/x"}]}, "secrets"), ({"secrets": [{"id": "a", "src": "x"}]}, "secrets.a"),
    ({"secrets": [{"id": "a", "src": "/x,y"}]}, "secrets.a"),
    ({"secrets": [{"id": "a", "src": "/x"}, {"id": "a", "src": "/y"}]}, "secrets"),
    ({"variants": {}}, "variants"), ({"variants": {"Base": {}}}, "variants"), ({"variants": {1: {}}}, "variants"),
    ({"variants": {"base": {"colour": 1}}}, "variants.base"),
    ({"variants": {"base": ["x"]}}, "variants.base"),
    ({"variants": {"base": {"target": "a b"}}}, "variants.base.target"),
    ({"variants": {"base": {"build_args": {"GIT_SHA": 1}}}}, "variants.base.build_args.GIT_SHA"),
    ({"variants": {"base": {"build_args": "x"}}}, "variants.base.build_args"),
    ({"variants": {"base": {"max_size": "big"}}}, "variants.base.max_size"),
    ({"variants": {"base": {"must_contain": "x"}}}, "variants.base.must_contain"),
    ({"variants": {"base": {"must_contain": ["a b"]}}}, "variants.base.must_contain"),
    ({"variants": {"base": {"must_not_contain": [{}]}}}, "variants.base.must_not_contain"),
    ({"timeout": 0}, "timeout"),
])
def test_an_option_that_does_not_fit_is_named(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(DriftguardError) as caught:
        Request.from_options(options(**changed))
    assert caught.value.subject == f"option {named}"
    assert caught.value.remedy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=6) | st.sampled_from(["build_args", "target", "must_contain", "max_size", "base"]), inner,
        max_size=3), max_leaves=10)


@given(st.dictionaries(st.text(max_size=6) | st.sampled_from(["base", "ocr"]), JSON, max_size=3), JSON)
def test_no_variants_and_arguments_at_all_make_a_traceback(variants: dict[str, Any], arguments: Any) -> None:
    try:
        request = Request.from_options(options(variants=variants, build_args=arguments))
    except DriftguardError:
        return
    assert set(request.variants) == set(variants)
