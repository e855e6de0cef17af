"""Readers of labelled functions: every row checked by name, pairs joined by identity and never guessed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks import Split
from code_repair_rl.tasks.vulnerabilities import cwe_id, decisive_lines, together
from code_repair_rl.tasks.vulnerabilities_own import read_labelled
from code_repair_rl.tasks.vulnerabilities_primevul import function_name, read_primevul
from code_repair_rl.tasks.vulnerabilities_sven import read_sven


def _primevul(number: int, *, fixed: bool, **changes: Any) -> dict[str, Any]:
    guard = "  if (n > 8) return;\n" if fixed else ""
    return {
        "idx": 2 * number + fixed,
        "project": "libfoo",
        "commit_id": f"{number:040x}",
        "project_url": "https://example.org/libfoo",
        "commit_message": "check the length",
        "target": 0 if fixed else 1,
        "func": f"static void copy_{number}(char *to, const char *from, int n)\n{{\n{guard}  memcpy(to, from, n);\n}}",
        "func_hash": 1.5e38,
        "file_name": "src/copy.c",
        "cwe": ["CWE-787"],
        "cve": "CVE-2020-0001",
    } | changes


def _sven(number: int, *, vulnerable: bool) -> dict[str, Any]:
    query = "'select ' + name" if vulnerable else "'select ?', (name,)"
    return {
        "func": f"def find_{number}(cursor, name):\n    cursor.execute({query})\n    return cursor.fetchall()",
        "cwe": "CWE-89",
        "is_vulnerable": vulnerable,
        "pair_id": number,
        "file_name": "app/db.py",
        "commit": f"github.com/somebody/app{number}/commit/abc",
    }


def _written(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def _pairs_of_numbers(reading: Any) -> set[tuple[int, int]]:
    return {(int(p.vulnerable.function_id) // 2, int(p.fixed.function_id) // 2) for p in reading.pairs}


def test_a_shuffled_paired_file_still_pairs_right(tmp_path: Path) -> None:
    rows = [_primevul(number, fixed=fixed) for number in range(20) for fixed in (False, True)]
    random.Random(3).shuffle(rows)
    reading = read_primevul(_written(tmp_path, rows, "primevul_train_paired.jsonl"))
    assert _pairs_of_numbers(reading) == {(number, number) for number in range(20)}
    assert all(function.split is Split.TRAIN for function in reading.functions)


def test_a_missing_side_is_reported_and_the_other_left_out(tmp_path: Path) -> None:
    rows = [_primevul(0, fixed=False), _primevul(1, fixed=False), _primevul(1, fixed=True)]
    reading = read_primevul(_written(tmp_path, rows, "primevul_test_paired.jsonl"))
    assert len(reading.functions) == 2
    (reason,) = reading.left_out.values()
    assert "fixed side is missing" in reason
    assert ":1)" in reason


def test_two_candidates_for_a_side_are_reported_not_guessed(tmp_path: Path) -> None:
    rows = [_primevul(0, fixed=False), _primevul(0, fixed=True), _primevul(0, fixed=True, idx=77)]
    reading = read_primevul(_written(tmp_path, rows, "x_paired.jsonl"))
    assert not reading.functions
    assert "2 fixed sides" in next(iter(reading.left_out.values()))


def test_functions_of_one_name_are_told_apart_by_file(tmp_path: Path) -> None:
    rows = [
        _primevul(0, fixed=fixed, file_name=name, idx=10 * place + fixed)
        for place, name in enumerate(("a.c", "b.c"))
        for fixed in (False, True)
    ]
    assert len(read_primevul(_written(tmp_path, rows, "x_paired.jsonl")).pairs) == 2


@pytest.mark.parametrize("name", ["x_paired.jsonl", "x.jsonl"])
def test_functions_of_one_name_in_two_files_are_no_pair(tmp_path: Path, name: str) -> None:
    rows = [_primevul(0, fixed=False, file_name="a.c"), _primevul(0, fixed=True, file_name="b.c")]
    reading = read_primevul(_written(tmp_path, rows, name))
    assert not reading.pairs
    if "paired" in name:
        assert sorted("missing" in reason for reason in reading.left_out.values()) == [True, True]


def test_the_hubs_folder_says_that_its_files_are_paired(tmp_path: Path) -> None:
    (tmp_path / "paired").mkdir()
    rows = [_primevul(0, fixed=True), _primevul(1, fixed=True), _primevul(1, fixed=False)]
    reading = read_primevul(_written(tmp_path / "paired", rows, "test-00000-of-00001.jsonl"))
    assert len(reading.pairs) == 1
    assert "vulnerable side is missing" in next(iter(reading.left_out.values()))
    assert {one.split for one in reading.functions} == {Split.TEST}


def test_an_unpaired_file_keeps_single_functions(tmp_path: Path) -> None:
    rows = [_primevul(0, fixed=False), _primevul(0, fixed=True), _primevul(1, fixed=True)]
    reading = read_primevul(_written(tmp_path, rows, "primevul_valid.jsonl"))
    assert len(reading.functions) == 3
    assert len(reading.pairs) == 1
    assert not reading.left_out


def test_the_hub_form_writes_the_list_of_cwes_as_a_string(tmp_path: Path) -> None:
    rows = [_primevul(0, fixed=fixed, cwe="['CWE-787', 'NVD-CWE-Other']", func_hash="12") for fixed in (False, True)]
    reading = read_primevul(_written(tmp_path, rows, "x_paired.jsonl"))
    assert reading.functions[0].cwes == ("CWE-787",)


def test_parquet_is_read_like_json_lines(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_primevul(number, fixed=fixed) for number in range(3) for fixed in (False, True)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train_paired.parquet")
    assert len(read_primevul(tmp_path / "train_paired.parquet").pairs) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": 2}, "target"),
        ({"func": ""}, "func"),
        ({"project": None}, "project"),
        ({"cwe": "[broken"}, "cwe"),
    ],
)
def test_primevul_refuses_a_malformed_row_by_line_and_key(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = _written(tmp_path, [_primevul(0, fixed=True), _primevul(1, fixed=False) | change])
    with pytest.raises(BadInput, match=rf"rows\.jsonl:2: {said}"):
        read_primevul(path)


def test_a_row_that_is_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"rows\.jsonl:2: not JSON"):
        read_sven(_written(tmp_path, [_sven(0, vulnerable=True), "{"]))


def test_a_repeated_idx_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, [_primevul(0, fixed=True), _primevul(1, fixed=True, idx=1)])
    with pytest.raises(BadInput, match=r"stands at .*:1 already"):
        read_primevul(path)


def test_sven_in_both_forms_gives_the_same_pairs(tmp_path: Path) -> None:
    flat = [_sven(number, vulnerable=vulnerable) for number in range(4) for vulnerable in (True, False)]
    official = [
        {
            "func_name": f"find_{number}",
            "func_src_before": _sven(number, vulnerable=True)["func"],
            "func_src_after": _sven(number, vulnerable=False)["func"],
            "line_changes": {},
            "char_changes": {},
            "commit_link": "https://" + _sven(number, vulnerable=True)["commit"],
            "file_name": "app/db.py",
            "vul_type": "cwe-089",
        }
        for number in range(4)
    ]
    random.Random(1).shuffle(flat)
    one = read_sven(_written(tmp_path, flat, "flat.jsonl"))
    two = read_sven(_written(tmp_path, official, "official.jsonl"))
    codes = [{(p.vulnerable.code, p.fixed.code, p.vulnerable.cwes, p.vulnerable.project) for p in r.pairs}
             for r in (one, two)]  # fmt: skip
    assert codes[0] == codes[1]
    assert len(codes[0]) == 4


def test_the_lines_that_the_fix_changed_are_found_on_both_sides(tmp_path: Path) -> None:
    (pair,) = read_sven(_written(tmp_path, [_sven(0, vulnerable=v) for v in (True, False)])).pairs
    codes = pair.vulnerable.code, pair.fixed.code
    assert [decisive_lines(*codes), decisive_lines(*codes[::-1])] == [(2,), (2,)]


def test_own_rows_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    good = {"code": "def f():\n    return 1\n", "label": "CWE-78", "lines": [2], "project": "shop", "split": "test"}
    reading = read_labelled(_written(tmp_path, [good, {"code": "x = 1\n", "label": "benign"}]))
    assert [function.vulnerable for function in reading.functions] == [True, False]
    assert reading.functions[0].cwes == ("CWE-78",)
    for change, said in (({"label": "bad"}, "label"), ({"lines": [3]}, "lines"), ({"liness": [1]}, "liness")):
        with pytest.raises(BadInput, match=rf":1: {said}"):
            read_labelled(_written(tmp_path, [good | change]))


def test_form_feeds_move_no_line(tmp_path: Path) -> None:
    row = {"code": "\x0cdef f(x):\n    y = x\x0c\n\n    return eval(y)\n", "label": "CWE-78", "lines": [4]}
    (one,) = read_labelled(_written(tmp_path, [row])).functions
    assert one.code.splitlines() == one.code.removesuffix("\n").split("\n")
    assert one.code.split("\n")[3] == "    return eval(y)"


def test_a_function_that_stands_in_two_files_is_taken_once_with_its_pair(tmp_path: Path) -> None:
    rows = [_primevul(0, fixed=fixed) for fixed in (False, True)] + [_primevul(1, fixed=True)]
    everything = read_primevul(_written(tmp_path, rows, "primevul_train.jsonl"))
    paired = read_primevul(_written(tmp_path, rows[:2], "primevul_train_paired.jsonl"))
    both = together([everything, paired])
    assert len(both.functions) == 3
    assert len(both.pairs) == 1


def test_one_function_in_two_files_is_refused(tmp_path: Path) -> None:
    rows = [_primevul(0, fixed=fixed) for fixed in (False, True)]
    readings = [read_primevul(_written(tmp_path, rows, f"{name}.jsonl")) for name in ("train", "test")]
    with pytest.raises(BadInput, match="another"):
        together(readings)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("static int f(void)\n{ return g(1); }", "f"),
        ("__attribute__((noinline)) char *g (int a)\n{", "g"),
        ("void A::close(int fd) const\n{", "A::close"),
        ("/* old(1) */ int h(\n int a)\n{", "h"),
    ],
)
def test_the_name_of_a_c_function(code: str, name: str) -> None:
    assert function_name(code) == name


@pytest.mark.parametrize(
    ("text", "found"), [("cwe-089", "CWE-89"), ("CWE-79", "CWE-79"), ("20", "CWE-20"), ("NVD-CWE-noinfo", None)]
)
def test_ways_of_writing_a_cwe(text: str, found: str | None) -> None:
    assert cwe_id(text) == found


_LINES = st.lists(st.sampled_from(["a = 1", "b()", "", "    return a", "x  "]), min_size=1, max_size=12)


@given(_LINES, _LINES)
def test_decisive_lines_are_written_lines_and_there_are_some_where_code_differs(one: list[str], two: list[str]) -> None:
    texts = ["\n".join(lines) + "\n" for lines in (one, two)]
    found = decisive_lines(*texts)
    assert all(1 <= number <= len(one) and one[number - 1].strip() for number in found)
    assert list(found) == sorted(set(found))
    if [line.rstrip() for line in one] == [line.rstrip() for line in two]:
        assert not found
