"""From labelled functions to tasks: no give-aways, no copies across splits, and what names tell is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput
from code_repair_rl.synthesis.bandit import BanditFinding, reading_of
from code_repair_rl.synthesis.giveaways import neutralised, tells
from code_repair_rl.synthesis.sourced import SourceOptions, build_from
from code_repair_rl.synthesis.vulnerabilities import classification_tasks, read_files
from code_repair_rl.tasks import Split, load_tasks, messages, oracle_answer
from code_repair_rl.tasks.classification import notes_on
from code_repair_rl.tasks.cwe import CweTree
from code_repair_rl.tasks.vulnerabilities import LabelledFunction, Reading, joined

TREE = CweTree({"CWE-78": "OS Command ('OS Command Injection')"}, {})


def test_comments_go_and_telling_names_are_renamed_alike_on_both_sides() -> None:
    before = "def bad_query(x):\n    # CWE-89: vulnerable!\n    return run_unsafe(x)  # bad\n"
    after = "def bad_query(x):\n    # FIXED\n    return run_good(x)\n"
    (one, two), (lines, _) = neutralised([before, after], "python")
    assert one == "def name_1(x):\n    return name_2(x)\n"
    assert two == "def name_1(x):\n    return name_3(x)\n"
    assert lines == {1: 1, 3: 2, 4: 3}


def test_c_comments_go_and_strings_stay() -> None:
    code = 'int f(void)\n{\n  /* the flaw\n     is here */\n  puts("a // b"); // bad\n}\n'
    assert neutralised([code], "c")[0] == ['int f(void)\n{\n  puts("a // b");\n}\n']


@pytest.mark.parametrize("name", ["bad", "isVulnerable", "good_sink", "CWE89", "vuln_1", "unsafeCopy", "CVE_2020_1"])
def test_names_that_tell(name: str) -> None:
    assert tells(name)


@pytest.mark.parametrize("name", ["safe_load", "goods", "badge", "ssl", "usedforsecurity", "secure_filename", "x"])
def test_names_that_do_not_tell(name: str) -> None:
    assert not tells(name)


@given(st.text(alphabet="ab#'\"/*\n x_", max_size=60), st.sampled_from(["python", "c"]))
def test_lines_keep_track_of_where_they_went(code: str, language: str) -> None:
    (text,), (numbers,) = neutralised([code], language)
    lines = text.split("\n")
    assert all(1 <= new <= len(lines) for new in numbers.values())
    assert list(numbers.values()) == sorted(set(numbers.values()))


def _functions(count: int, split: Split | None = None) -> list[LabelledFunction]:
    found = []
    for number in range(count):
        body = "\n".join(f"    step_{number}_{line} = other_{number}({line})" for line in range(6))
        for vulnerable in (True, False):
            shell = "True" if vulnerable else "False"
            found.append(
                LabelledFunction(
                    function_id=f"{number}/{vulnerable}",
                    code=f"def f_{number}(x):\n{body}\n    run_{number}(x, shell={shell})\n",
                    vulnerable=vulnerable,
                    cwes=("CWE-78",),
                    language="python",
                    project=f"project-{number}",
                    pair_id=str(number),
                    split=split,
                    where=f"file:{number}",
                )
            )
    return found


def _reading(functions: list[LabelledFunction]) -> Reading:
    return joined("test", functions)


def test_tasks_know_their_evidence_and_split_by_project() -> None:
    made = classification_tasks(_reading(_functions(30)), "mine", tree=TREE, labels_by="a tool")
    assert len(made.tasks) == 60
    for task in made.tasks:
        (line,) = task.hints.exact_lines
        assert "shell=" in line.text
        assert "shell=" not in "".join(messages(task)[1]["content"].split("Is this Python")[1:])
    sides: dict[str, set[Split]] = {}
    for task in made.tasks:
        sides.setdefault(task.problem, set()).add(task.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert "CWE-78 OS Command Injection" in oracle_answer(next(t for t in made.tasks if t.oracle == "vulnerable"))
    assert "a tool's own opinion" in notes_on(made.tasks)[0]


def test_a_word_that_tells_the_label_is_measured_and_forbids_claims() -> None:
    # `True` and `False` are the labels here: the bag of identifiers must see it.
    made = classification_tasks(_reading(_functions(60)), "mine", tree=TREE)
    assert made.leak is not None
    assert made.leak.high > 0.9
    assert any("NOTHING IS CLAIMED" in note for note in notes_on(made.tasks))


def test_a_copy_leaves_training_with_the_other_side_of_its_pair() -> None:
    train, test = _functions(1, Split.TRAIN), _functions(1, Split.TEST)
    again = [
        LabelledFunction(**{**{name: getattr(one, name) for name in LabelledFunction.__slots__},
                            "function_id": f"again-{one.function_id}", "pair_id": "again", "project": "elsewhere",
                            "code": one.code + "\n# copied"})
        for one in train
    ]  # fmt: skip
    made = classification_tasks(_reading([*again, *test]), "mine", tree=TREE)
    assert {task.split for task in made.tasks} == {Split.TEST}
    assert len(made.quarantined) == 2


def test_code_with_both_labels_is_left_out() -> None:
    one, other, *calm = _functions(2)
    same = LabelledFunction("x", one.code, False, language="python", project="p", where="file:9")
    for order in ([one, other, same, *calm], [same, *calm, one, other]):
        made = classification_tasks(_reading(order), "mine", tree=TREE)
        assert {(item.problem, item.reason) for item in made.unusable} == {
            ("0/True", "the same code has both labels"),
            ("x", "the same code has both labels"),
        }
        assert [task.task_id for task in made.tasks] == ["mine/1/True", "mine/1/False"]


def test_a_language_that_no_function_has_is_refused() -> None:
    with pytest.raises(BadInput, match="python, c, cpp"):
        classification_tasks(_reading(_functions(1)), "mine", tree=TREE, language="rust")


def test_what_could_not_be_measured_allows_no_claims() -> None:
    made = classification_tasks(_reading(_functions(4, Split.TEST)), "mine", tree=TREE)
    assert made.leak is None
    assert any("NOTHING IS CLAIMED" in note for note in notes_on(made.tasks))


def test_a_folder_of_splits_is_one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("code_repair_rl.tasks.cwe.fetch_cwe_tree", lambda: TREE)
    for split, start in (("train", 0), ("valid", 10), ("test", 20)):
        rows = [
            {"idx": 2 * n + side, "project": f"p{n}", "commit_id": f"{n:040x}", "target": side, "cwe": ["CWE-787"],
             "func": f"int f{n}(int a{n}) {{\n  int b{n} = a{n} * {n};\n{'' if side else '  if (a > 8) return 0;'}\n"
                     f"  use_{n}(b{n});\n  return more_{n}(b{n});\n}}"}
            for n in range(start, start + 4) for side in (0, 1)
        ]  # fmt: skip
        (tmp_path / f"primevul_{split}_paired.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = build_from("primevul", str(tmp_path), SourceOptions(), out=tmp_path / "out.jsonl")
    tasks = load_tasks(tmp_path / "out.jsonl")
    assert report.tasks == len(tasks) == 24
    assert {split: sum(task.split is split for task in tasks) for split in Split} == dict.fromkeys(Split, 8)


def test_files_of_a_folder_need_no_ids(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        row = {"code": f"def {split}():\n    return 1\n", "label": "benign"}
        (tmp_path / split / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    found = read_files("labelled", tmp_path).functions
    assert {(one.function_id, one.split) for one in found} == {
        ("test/test:1", Split.TEST),
        ("train/train:1", Split.TRAIN),
    }


def test_the_hub_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="name their folder"):
        read_files("primevul", Path("hub:somebody/PrimeVul"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no \.jsonl"):
        read_files("sven", tmp_path)


EXAMPLES = {
    "run.py": "import subprocess\n\nsubprocess.call(c, shell=True)  # bad\nprint(c)\nx = [1, 2]\n",
    "db.py": "import db\ndb.execute('a' % b)\n\n\ndef calm():\n    return 2\n",
}


def _judge(files: Mapping[str, str]) -> Mapping[str, tuple[BanditFinding, ...]]:
    """Finds `shell=True`, and `%` for which no rewrite helps."""
    found = {}
    for name, text in files.items():
        hits = [
            BanditFinding(*kind, (number,))
            for number, line in enumerate(text.split("\n"), start=1)
            for mark, kind in (("shell=True", ("B602", "CWE-78")), ("% b", ("B999", "CWE-89")))
            if mark in line
        ]
        found[name] = tuple(hits)
    return found


def test_pieces_get_a_twin_only_where_the_judge_agrees_that_it_is_mended() -> None:
    reading = reading_of(EXAMPLES, _judge, seed=0)
    (pair,) = reading.pairs
    assert "shell=True" in pair.vulnerable.code
    assert pair.fixed.code == pair.vulnerable.code.replace("shell=True", "shell=False")
    assert "# bad" not in pair.vulnerable.code
    (line,) = pair.vulnerable.lines or ()
    assert "shell=True" in pair.vulnerable.code.split("\n")[line - 1]
    assert pair.vulnerable.code.startswith("import subprocess\n")
    alone = [one for one in reading.functions if one.vulnerable and one.pair_id is None]
    assert [one.cwes for one in alone] == [("CWE-89",)]
    assert sum(one.vulnerable for one in reading.functions) == sum(not one.vulnerable for one in reading.functions)


def test_the_same_seed_gives_the_same_pieces() -> None:
    assert reading_of(EXAMPLES, _judge, seed=3) == reading_of(EXAMPLES, _judge, seed=3)
