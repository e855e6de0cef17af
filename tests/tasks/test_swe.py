"""Instances in their official schemas become tasks; a malformed row is named with its key."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.synthesis.sourced import SourceOptions, build_from
from code_repair_rl.tasks import Environment, RepositoryTests, Split, Task, load_tasks, oracle_answer
from code_repair_rl.tasks.splits import held_out
from code_repair_rl.tasks.swe import instance_task, instances
from tests.tasks.repositories_for_tests import AFTER, BEFORE, commit, git

F2P, P2P = "tests/test_price.py::test_price", "tests/test_price.py::test_name"


class Shop:
    """The repository, and rows of each data set about its one fix."""

    def __init__(self, folder: Path) -> None:
        self.mirrors = folder / "mirrors"
        self.clone = self.mirrors / "me" / "shop"
        self.base = commit(self.clone, BEFORE, "Sell")
        self.fixed = commit(self.clone, AFTER, "Fix the price")
        self.patch = git(self.clone, "diff", self.base, self.fixed, "--", "shop")
        self.test_patch = git(self.clone, "diff", self.base, self.fixed, "--", "tests")
        self.bug = git(self.clone, "diff", self.fixed, self.base, "--", "shop")

    def bench(self, **changes: Any) -> dict[str, Any]:
        return {
            "repo": "me/shop",
            "instance_id": "me__shop-1",
            "base_commit": self.base,
            "patch": self.patch,
            "test_patch": self.test_patch,
            "problem_statement": "The price is two too low.",
            "hints_text": "Change the sign!",
            "created_at": "2020-01-01T00:00:00Z",
            "version": "1.0",
            "FAIL_TO_PASS": json.dumps([F2P]),
            "PASS_TO_PASS": json.dumps([P2P]),
            "environment_setup_commit": self.base,
            **changes,
        }

    def smith(self, **changes: Any) -> dict[str, Any]:
        return {
            "instance_id": "me__shop.abc.func_pm_op_swap__x1",
            "repo": f"swesmith/me__shop.{self.fixed[:8]}",
            "patch": self.bug,
            "FAIL_TO_PASS": [F2P],
            "PASS_TO_PASS": [P2P],
            "image_name": "jyangballin/swesmith.x86_64.me_1776_shop.abc",
            "problem_statement": "The price is two too low.",
            **changes,
        }

    def gym(self, **changes: Any) -> dict[str, Any]:
        path = "shop/price.py"
        diffs = [
            {
                "header": {"file": {"path": name}, "misc_line": None},
                "old_file_content": BEFORE[name],
                "new_file_content": AFTER[name],
                "hunks": [],
            }
            for name in (path, "tests/test_price.py")
        ]
        return {
            "repo_name": "shop",
            "docker_image": f"namanjain12/shop_final:{self.fixed}",
            "commit_hash": self.fixed,
            "parsed_commit_content": json.dumps({"file_diffs": diffs, "old_commit_hash": self.base}),
            "execution_result_content": json.dumps(
                {
                    "test_file_names": ["test_1.py"],
                    "test_file_codes": [AFTER["tests/test_price.py"]],
                    "old_commit_res_stdout": "== short test summary ==\nPASSED r2e_tests/test_1.py::test_name\n",
                }
            ),
            "expected_output_json": json.dumps({"test_price": "PASSED", "test_name": "PASSED"}),
            "problem_statement": "The price is two too low.",
            **changes,
        }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))


def _written(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _task(shop: Shop, collection: str, source: str, **options: Any) -> Task:
    (instance,) = instances(collection, source)
    return instance_task(instance, collection, str(shop.mirrors), **options)


@pytest.mark.parametrize(
    ("collection", "row", "image"),
    [
        ("swe-bench", Shop.bench, "swebench/sweb.eval.x86_64.me_1776_shop-1:latest"),
        ("swe-gym", Shop.bench, "xingyaoww/sweb.eval.x86_64.me_s_shop-1:latest"),
        ("swe-smith", Shop.smith, "jyangballin/swesmith.x86_64.me_1776_shop.abc"),
        ("r2e-gym", Shop.gym, "namanjain12/shop_final:"),
    ],
)
def test_each_family_gives_the_tree_with_the_fault_its_fix_and_its_tests(
    shop: Shop, tmp_path: Path, collection: str, row: Callable[[Shop], dict[str, Any]], image: str
) -> None:
    source = _written(tmp_path / "rows.jsonl", row(shop))
    task = _task(shop, collection, source)
    assert task.files["shop/price.py"] == BEFORE["shop/price.py"]
    assert task.oracle == {"shop/price.py": AFTER["shop/price.py"]}
    assert task.description == "The price is two too low."
    assert task.licence == "MIT"
    assert isinstance(task.tests, RepositoryTests)
    assert task.tests.environment is not None
    assert str(task.tests.environment.image).startswith(image)
    assert "Change the sign" not in task.model_dump_json()

    here = _task(shop, collection, source, environment=Environment())
    with Grader(workers=1) as grader:
        good = grader.grade(here, oracle_answer(here))
        unchanged = grader.grade_files(here, here.files)
    assert good.passed, good
    assert not unchanged.passed
    assert [test.status.value for test in unchanged.tests] == ["failed", "passed"]


def test_trees_hold_no_history_and_are_kept_once(shop: Shop, tmp_path: Path) -> None:
    source = _written(tmp_path / "rows.jsonl", shop.bench(), shop.bench(instance_id="me__shop-2"))
    tasks = [instance_task(one, "swe-gym", str(shop.mirrors)) for one in instances("swe-gym", source)]
    assert set(tasks[0].files) == set(BEFORE)
    assert len(list((tmp_path / "home" / "trees").iterdir())) == 1


def test_parquet_and_a_bare_clone_will_do(shop: Shop, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(shop.clone), str(tmp_path / "mirrors" / "me__shop.git"))
    row = shop.bench(FAIL_TO_PASS=[F2P], PASS_TO_PASS=[P2P])
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (instance,) = instances("swe-bench", str(tmp_path / "rows.parquet"))
    assert instance_task(instance, "swe-bench", str(tmp_path / "mirrors")).tests is not None


def test_a_url_is_cloned_once(shop: Shop, tmp_path: Path) -> None:
    source = _written(tmp_path / "rows.jsonl", shop.bench())
    (instance,) = instances("swe-bench", source)
    prefix = f"file://{shop.mirrors}"
    first = instance_task(instance, "swe-bench", prefix)
    assert (tmp_path / "home" / "repositories" / "me__shop.git" / "HEAD").is_file()
    assert instance_task(instance, "swe-bench", prefix) == first


_MALFORMED: list[tuple[str, Callable[[Shop], dict[str, Any]], str]] = [
    ("swe-bench", lambda shop: shop.bench(repo="shop"), "repo"),
    ("swe-bench", lambda shop: shop.bench(base_commit="main"), "base_commit"),
    ("swe-bench", lambda shop: shop.bench(base_commit=None), "base_commit"),
    ("swe-bench", lambda shop: shop.bench(FAIL_TO_PASS="[test"), "FAIL_TO_PASS"),
    ("swe-bench", lambda shop: shop.bench(FAIL_TO_PASS=[]), "FAIL_TO_PASS"),
    ("swe-bench", lambda shop: shop.bench(PASS_TO_PASS=[1]), "PASS_TO_PASS.0"),
    ("swe-gym", lambda shop: {key: text for key, text in shop.bench().items() if key != "patch"}, "patch"),
    ("swe-gym", lambda shop: shop.bench(problem_statement=""), "problem_statement"),
    ("swe-smith", lambda shop: shop.smith(repo="shop"), "repo"),
    ("swe-smith", lambda shop: shop.smith(instance_id=7), "instance_id"),
    ("r2e-gym", lambda shop: shop.gym(parsed_commit_content="{"), "parsed_commit_content"),
    ("r2e-gym", lambda shop: shop.gym(parsed_commit_content='{"file_diffs": []}'), "parsed_commit_content.file_diffs"),
    ("r2e-gym", lambda shop: shop.gym(expected_output_json='{"test_x": "PASSED"}'), "expected_output_json"),
    ("r2e-gym", lambda shop: shop.gym(expected_output_json="{}"), "expected_output_json"),
    ("r2e-gym", lambda shop: shop.gym(docker_image=None), "docker_image"),
]


@pytest.mark.parametrize(("collection", "row", "key"), _MALFORMED)
def test_a_malformed_row_is_named_with_its_key(
    shop: Shop, tmp_path: Path, collection: str, row: Callable[[Shop], dict[str, Any]], key: str
) -> None:
    good = {"swe-smith": shop.smith, "r2e-gym": shop.gym}.get(collection, shop.bench)()
    source = _written(tmp_path / "rows.jsonl", good, row(shop))
    with pytest.raises(BadInput, match=rf"rows\.jsonl:2: {key}: "):
        list(instances(collection, source))


def test_two_rows_of_one_instance_are_refused(shop: Shop, tmp_path: Path) -> None:
    source = _written(tmp_path / "rows.jsonl", shop.bench(), shop.bench())
    with pytest.raises(BadInput, match=r"rows.jsonl:2: instance_id: 'me__shop-1' is at .*rows.jsonl:1 already"):
        list(instances("swe-bench", source))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"repo": "me/other"}, "there is no clone of me/other"),
        ({"base_commit": "0" * 40}, "git archive: "),
        (
            {"patch": "--- a/shop/price.py\n+++ b/shop/price.py\n@@ -1 +1 @@\n-nothing\n+else\n"},
            "patch: it does not apply",
        ),
        ({"test_patch": "no diff"}, "test_patch: it does not apply"),
    ],
)
def test_what_does_not_fit_the_repository_names_the_row(
    shop: Shop, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    (instance,) = instances("swe-gym", _written(tmp_path / "rows.jsonl", shop.bench(**changes)))
    with pytest.raises(BadInput, match=rf"rows\.jsonl:1.*{complaint}"):
        instance_task(instance, "swe-gym", str(shop.mirrors))


def test_benchmarks_are_never_trained_on_and_others_are_held_out_by_hash(shop: Shop, tmp_path: Path) -> None:
    source = _written(tmp_path / "rows.jsonl", *(shop.bench(instance_id=f"me__shop-{n}") for n in range(12)))
    found = list(instances("swe-gym", source))
    splits = {
        share: [instance_task(one, "swe-gym", str(shop.mirrors), hold_out=share).split for one in found]
        for share in (0.3, 0.6, 1.0)
    }
    assert set(splits[1.0]) == {Split.TEST}
    assert all(more is Split.TEST for less, more in zip(splits[0.3], splits[0.6], strict=True) if less is Split.TEST)
    assert Split.TRAIN in splits[0.3]
    bench = [instance_task(one, "swe-bench", str(shop.mirrors)).split for one in instances("swe-bench", source)]
    assert set(bench) == {Split.TEST}
    names = [f"name-{number}" for number in range(4000)]
    assert abs(sum(held_out(name, 0.25) for name in names) / len(names) - 0.25) < 0.03


def test_a_set_is_built_of_what_can_be_used_and_tells_the_rest(shop: Shop, tmp_path: Path) -> None:
    source = _written(tmp_path / "rows.jsonl", shop.bench(), shop.bench(instance_id="b", repo="me/other"))
    options = SourceOptions(repositories=str(shop.mirrors))
    report = build_from("swe-bench", source, options)
    assert (report.tasks, list(report.unusable)) == (1, ["b"])
    assert load_tasks("swe-bench")[0].task_id == "swe-bench/me__shop-1"
    with pytest.raises(BadInput, match="--repositories"):
        build_from("swe-bench", source, SourceOptions())


def test_injected_bugs_that_share_a_file_are_in_one_split_or_left_out(shop: Shop, tmp_path: Path) -> None:
    names = [f"f{number}.py" for number in range(8)]
    base = commit(tmp_path / "mirrors" / "me" / "parts", dict.fromkeys(names, "x = 0\n"), "Begin")
    repository = f"swesmith/me__parts.{base[:8]}"

    def row(*files: str) -> dict[str, Any]:
        patch = "".join(f"--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-x = 0\n+x = 1\n" for name in files)
        return shop.smith(instance_id="+".join(files), repo=repository, patch=patch)

    alone = [row(name) for name in names]
    combined = [row(one, two) for one, two in pairwise(names)]
    tasks, refused = [], 0
    for instance in instances("swe-smith", _written(tmp_path / "rows.jsonl", *alone, *combined)):
        try:
            tasks.append(instance_task(instance, "swe-smith", str(tmp_path / "mirrors")))
        except BadInput as error:
            assert "in different splits" in error.what
            refused += 1
    assert {task.split for task in tasks if len(task.oracle) == 1} > {Split.TRAIN}
    assert len(names) < len(tasks) == len(alone) + len(combined) - refused < len(alone) + len(combined)
    for name in names:
        assert len({task.split for task in tasks if name in task.oracle}) == 1
