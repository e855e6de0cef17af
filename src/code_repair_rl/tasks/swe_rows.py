"""The official schemas of instances: SWE-bench and SWE-Gym, SWE-smith, R2E-Gym; one shape for all of them.

SWE-bench (Lite, Verified, Multilingual) and SWE-Gym share columns; test lists are lists or JSON in a string. The
`patch` of a SWE-smith row writes the bug: its fix is the reverse. R2E-Gym packs commit, tests and expected results as
JSON.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks.rows import checked

R2E_TESTS = "r2e_tests"
"""The folder in which R2E-Gym's images keep the tests."""
_COMMIT = r"^[0-9a-f]{7,64}\^?$"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance, whatever data set it came from."""

    instance_id: str
    repository: str
    """`owner/name`; only the name where the data set says no more."""
    base_commit: str | None
    """None: the mirror's head."""
    description: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    fix: str = ""
    """A unified diff from the base commit to the fix."""
    bug: str = ""
    """A unified diff from the base commit to the bug; then the base commit is the fix."""
    texts: Mapping[str, tuple[str | None, str | None]] | None = None
    """Path to text before and after the fix, where the data set holds texts instead of a diff."""
    test_patch: str = ""
    test_files: Mapping[str, str] | None = None
    image: str | None = None
    version: str = ""
    where: str = ""


def _tests_in(value: Any) -> Any:
    """Tests as a list; in some of the data sets it is written as JSON in a string."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("not a list of tests, nor JSON of one") from None


_Tests = Annotated[list[str], BeforeValidator(_tests_in)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")  # dates, urls, and `hints_text`, which often tells the fix


class _BenchRow(_Row):
    instance_id: str = Field(min_length=1)
    repo: str = Field(pattern=r"^[^/\s]+/[^/\s]+$")
    base_commit: str = Field(pattern=_COMMIT)
    patch: str = Field(min_length=1)
    test_patch: str
    problem_statement: str = Field(min_length=1)
    FAIL_TO_PASS: _Tests = Field(min_length=1)
    PASS_TO_PASS: _Tests
    version: str | None = None
    image_name: str | None = None
    docker_image: str | None = None


class _SmithRow(_Row):
    instance_id: str = Field(min_length=1)
    repo: str = Field(min_length=1)
    patch: str = Field(min_length=1)
    problem_statement: str = Field(min_length=1)
    FAIL_TO_PASS: _Tests = Field(min_length=1)
    PASS_TO_PASS: _Tests
    image_name: str | None = None
    base_commit: str | None = Field(default=None, pattern=_COMMIT)


class _FileName(_Row):
    path: str = Field(min_length=1)


class _Header(_Row):
    file: _FileName


class _FileDiff(_Row):
    header: _Header
    old_file_content: str | None = None
    new_file_content: str | None = None


class _Commit(_Row):
    file_diffs: list[_FileDiff] = Field(min_length=1)
    old_commit_hash: str = Field(pattern=_COMMIT)


class _Execution(_Row):
    test_file_names: list[str] = Field(min_length=1)
    test_file_codes: list[str] = Field(min_length=1)
    old_commit_res_stdout: str = ""


class _GymRow(_Row):
    repo_name: str = Field(min_length=1)
    docker_image: str = Field(min_length=1)
    commit_hash: str = Field(pattern=_COMMIT)
    problem_statement: str = Field(min_length=1)
    parsed_commit_content: Json[_Commit]
    execution_result_content: Json[_Execution]
    expected_output_json: Json[dict[str, str]]


def bench_instance(row: Any, where: str, *, image_prefix: str = "", separator: str = "__") -> Instance:
    """A row of SWE-bench or SWE-Gym.

    Args:
        row: as read.
        where: its place, for messages.
        image_prefix: of the official image's name, to which the instance's id is appended; none where empty.
        separator: what stands for `__` in image names, which may not hold it.

    Raises:
        BadInput: it breaks the schema; the error names row and key.
    """
    found = checked(_BenchRow, row, where)
    named = f"{image_prefix}{found.instance_id.lower().replace('__', separator)}:latest" if image_prefix else None
    return Instance(
        instance_id=found.instance_id,
        repository=found.repo,
        base_commit=found.base_commit,
        description=found.problem_statement,
        fail_to_pass=tuple(found.FAIL_TO_PASS),
        pass_to_pass=tuple(found.PASS_TO_PASS),
        fix=found.patch,
        test_patch=found.test_patch,
        image=found.image_name or found.docker_image or named,
        version=found.version or "",
        where=where,
    )


def smith_instance(row: Any, where: str) -> Instance:
    """A row of SWE-smith: its repository is a mirror, named `owner__name.COMMIT`, of one commit.

    Raises:
        BadInput: it breaks the schema; the error names row and key.
    """
    found = checked(_SmithRow, row, where)
    named = re.fullmatch(r"(?:[^/]+/)?(?P<owner>[^/]+?)__(?P<name>[^/]+)\.(?P<commit>[0-9a-f]{7,40})", found.repo)
    if named is None and found.base_commit is None:
        raise BadInput(f"repo: {found.repo!r} names no commit (owner__name.COMMIT)", where=where)
    return Instance(
        instance_id=found.instance_id,
        repository=f"{named['owner']}/{named['name']}" if named else found.repo,
        base_commit=named["commit"] if named else found.base_commit,
        description=found.problem_statement,
        fail_to_pass=tuple(found.FAIL_TO_PASS),
        pass_to_pass=tuple(found.PASS_TO_PASS),
        bug=found.patch,
        image=found.image_name,
        where=where,
    )


def gym_instance(row: Any, where: str) -> Instance:
    """A row of R2E-Gym. Tests that the old commit's log shows as passed are P2P, all other expected ones F2P.

    Raises:
        BadInput: it breaks the schema, or names a test that its test files do not hold; the error names row and key.
    """
    found = checked(_GymRow, row, where)
    commit, execution = found.parsed_commit_content, found.execution_result_content
    if len(execution.test_file_names) != len(execution.test_file_codes):
        raise BadInput("execution_result_content.test_file_codes: not one for each of test_file_names", where=where)
    test_files = {
        f"{R2E_TESTS}/{name.rpartition('/')[2]}": code
        for name, code in zip(execution.test_file_names, execution.test_file_codes, strict=True)
    }
    expected = [name for name, status in found.expected_output_json.items() if status == "PASSED"]
    if not expected:
        raise BadInput("expected_output_json: no test is expected to pass", where=where)
    places = _tests_of(test_files)
    before = set(re.findall(r"^PASSED (?:\S+?::)?(\S+)", execution.old_commit_res_stdout, re.MULTILINE))
    passed_before = {name.replace("::", ".") for name in before}
    ids: dict[bool, list[str]] = {True: [], False: []}
    for name in expected:
        function, bracket, parameters = name.partition("[")
        place = places.get(function.replace("::", "."))
        if place is None:
            raise BadInput(f"expected_output_json: no test file holds {name!r}", where=where)
        ids[name.replace("::", ".") in passed_before].append(place + bracket + parameters)
    tests = {path for path in test_files if path}
    return Instance(
        instance_id=f"{found.repo_name}__{found.commit_hash}",
        repository=found.repo_name,
        base_commit=commit.old_commit_hash,
        description=found.problem_statement,
        fail_to_pass=tuple(ids[False]),
        pass_to_pass=tuple(ids[True]),
        texts={
            one.header.file.path: (one.old_file_content, one.new_file_content)
            for one in commit.file_diffs
            if not is_test(one.header.file.path) and one.header.file.path not in tests
        },
        test_files=test_files,
        image=found.docker_image,
        where=where,
    )


def is_test(path: str) -> bool:
    """Whether a path is a test's, as the data sets tell them apart."""
    parts = path.lower().split("/")
    name = parts[-1]
    return any(part in ("test", "tests", "testing", "e2e") for part in parts[:-1]) or bool(
        re.match(r"(test_.*|.*_test|conftest)\.py$", name)
    )


def _tests_of(files: Mapping[str, str]) -> dict[str, str]:
    """`test_x` and `TestY.test_x` to their node ids."""
    found: dict[str, str] = {}
    for path, text in files.items():
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError):
            continue
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.setdefault(node.name, f"{path}::{node.name}")
            elif isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                        found.setdefault(f"{node.name}.{inner.name}", f"{path}::{node.name}::{inner.name}")
    return found
