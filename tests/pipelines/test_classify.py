"""Several answers about a file become one opinion, with the lines they agree on."""

from __future__ import annotations

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.pipelines.classify import opinions, sections_of
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.scripted import ScriptedEngine

FILE = (
    "import os\n\n\ndef run(cmd):\n    os.system(cmd)\n\n\nclass A:\n    def calm(self):\n        return 1\n"
    "\n\ndef long():\n" + "".join(f"    step_{number}()\n" for number in range(300))
)
YES = "<think>\nline 2: os.system(cmd)\npattern: CWE-78\n</think>\n<answer>vulnerable</answer>"
FAR = "<think>\nline 2: something else\n</think>\n<answer>vulnerable</answer>"
NO = "<think>\npattern: none\n</think>\n<answer>benign</answer>"


def test_a_long_python_file_is_asked_about_function_by_function() -> None:
    engine = ScriptedEngine([YES])
    sections = sections_of("a.py", FILE, engine, labels=("benign", "vulnerable"), max_prompt_tokens=900)
    assert [(one.name, one.first, one.last) for one in sections.asked] == [("run", 4, 5), ("A.calm", 9, 10)]
    (whole,) = sections_of("a.py", FILE, engine, labels=(), max_prompt_tokens=10**6).asked
    assert (whole.first, whole.last) == (1, FILE.count("\n"))


def test_what_is_not_asked_about_is_named() -> None:
    text = '"""Docs."""\n' + FILE + "\nPORT = 1\nif PORT:\n    def under():\n        eval(x)\n\nos.system(x)\n"
    found = sections_of("a.py", text, ScriptedEngine([YES]), labels=(), max_prompt_tokens=900)
    assert [one.name for one in found.asked] == ["run", "A.calm"]
    last = text.count("\n")
    assert [(one.name, one.first, one.last) for one in found.not_asked] == [
        ("long", 14, 314),
        ("", last - 5, last - 2),
        ("", last, last),
    ]
    assert "more than 900 tokens" in found.not_asked[0].reason


def test_what_a_classs_header_runs_is_named() -> None:
    text = '@register(eval("x"))\nclass A(build(os.system("id"))):\n    def f(self):\n        return 1\n\n\nclass B:\n'
    text += "    def g(self):\n" + "".join(f"        step_{n}()\n" for n in range(300))
    found = sections_of("a.py", text, ScriptedEngine([YES]), labels=(), max_prompt_tokens=900)
    assert [one.name for one in found.asked] == ["A.f"]
    assert [(one.name, one.first, one.last) for one in found.not_asked] == [("", 1, 2), ("B.g", 8, 308)]


def test_form_feeds_end_no_lines() -> None:
    text = "import os\n\x0c\n\x0c\ndef run(cmd):\n    os.system(cmd)\n" + "".join(f"x{n} = {n}\n" for n in range(300))
    labels = ("benign", "vulnerable")
    found = sections_of("a.py", text, ScriptedEngine([YES]), labels=labels, max_prompt_tokens=900)
    (run,) = found.asked
    assert run.task.files == {"a.py": "def run(cmd):\n    os.system(cmd)\n"}
    (said,) = opinions([run], ScriptedEngine([YES]), samples=1, sampling=Sampling(0.8, 500, 0))
    assert [(line.number, line.text) for line in said.lines] == [(5, "    os.system(cmd)")]


def test_what_does_not_fit_says_what_to_do() -> None:
    engine = ScriptedEngine([YES])
    with pytest.raises(BadInput, match="--lines"):
        sections_of("a.c", "int x;\n" * 400, engine, labels=(), max_prompt_tokens=900)
    with pytest.raises(BadInput, match="no 9-900"):
        sections_of("a.py", FILE, engine, labels=(), max_prompt_tokens=900, lines=(9, 900))


def test_votes_and_cited_lines_are_counted_in_the_files_own_numbers() -> None:
    engine = ScriptedEngine([YES, FAR, NO, "?"])
    sections = sections_of("a.py", FILE, engine, labels=("benign", "vulnerable"), max_prompt_tokens=900, lines=(4, 5))
    (found,) = opinions(sections.asked, engine, samples=4, sampling=Sampling(0.8, 500, 0))
    assert found.label == "vulnerable"
    assert found.vulnerable
    assert found.vote_share == 0.5
    assert dict(found.votes) == {"vulnerable": 0.5, "benign": 0.25, "unreadable": 0.25}
    assert [(line.number, line.share, line.text) for line in found.lines] == [(5, 0.5, "    os.system(cmd)")]
    assert found.misquoted == 1


def test_where_nothing_can_be_read_there_is_no_verdict() -> None:
    engine = ScriptedEngine(["?"])
    sections = sections_of("a.py", "x = 1\n", engine, labels=("benign", "vulnerable"), max_prompt_tokens=900)
    (found,) = opinions(sections.asked, engine, samples=2, sampling=Sampling(0.8, 500, 0))
    assert found.label == "unreadable"
    assert not found.vulnerable
    assert found.vote_share == 1.0


def test_a_tie_goes_to_the_better_evidence() -> None:
    engine = ScriptedEngine([FAR, NO])
    sections = sections_of("a.py", "import os\nos.system(cmd)\n", engine, labels=("benign", "vulnerable"),
                           max_prompt_tokens=900)  # fmt: skip
    (found,) = opinions(sections.asked, engine, samples=2, sampling=Sampling(0.8, 500, 0))
    assert found.label == "benign"
