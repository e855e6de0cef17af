"""Near-duplicates across splits are found whatever their names and layout, and leave training."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.synthesis.duplicates import open_copies, shingles, without_near_duplicates
from code_repair_rl.synthesis.masking import functions_in
from code_repair_rl.synthesis.near_copies import similarity
from code_repair_rl.tasks import Split, Task
from tests.tasks.examples import addition

MEAN = "def mean(xs):\n    total = 0\n    for x in xs:\n        total += x\n    return total / len(xs)\n"
COPY = "def average(values):\n  # the mean\n  s = 0\n\n  for v in values:\n    s += v\n  return s / len(values)\n"
OTHER = """
def longest(words):
    best = ''
    for word in words:
        if len(word) > len(best):
            best = word
    return best
"""


def task(name: str, text: str, split: Split) -> Task:
    files = {"solution.py": text + "# faulty\n"}
    return addition(name, problem=name, split=split).model_copy(
        update={"files": files, "oracle": {"solution.py": text}}
    )


def test_names_comments_and_layout_do_not_hide_a_copy() -> None:
    assert similarity(shingles(MEAN), shingles(COPY)) == 1
    assert similarity(shingles(MEAN), shingles(OTHER)) < 0.5


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        (Split.TRAIN, Split.TEST, "b"),
        (Split.TRAIN, Split.VALIDATION, "b"),
        (Split.TEST, Split.VALIDATION, "a"),
    ],
)
def test_the_copy_in_the_earlier_used_split_goes(first: Split, second: Split, stays: str) -> None:
    kept, dropped = without_near_duplicates([task("a", MEAN, first), task("b", COPY, second), task("c", OTHER, first)])
    assert [one.problem for one in kept] == [stays, "c"]
    (gone,) = dropped
    assert gone.reason.startswith(f"nearly the same as {stays} of the ")


def test_copies_within_a_split_stay() -> None:
    tasks = [task("a", MEAN, Split.TRAIN), task("b", COPY, Split.TRAIN)]
    assert without_near_duplicates(tasks) == (tasks, [])


@pytest.mark.parametrize("line", ["", "    print({number})\n"])
def test_a_copy_is_found_however_many_have_it(line: str) -> None:
    splits = [Split.TEST, *[Split.TRAIN] * 30]
    texts = [f"{MEAN}{line.format(number=number)}" for number in range(31)]
    kept, dropped = without_near_duplicates(
        [task(f"{number:02}", text, split) for number, (text, split) in enumerate(zip(texts, splits, strict=True))]
    )
    assert [one.problem for one in kept] == ["00"]
    assert len(dropped) == 30


def test_a_copy_in_the_same_file_is_named_whatever_its_docstring_says() -> None:
    documented = COPY.replace("  # the mean\n", '  """Sum up, and divide by how many there are of them."""\n')
    method = "class Numbers:\n" + "".join(f"    {line}\n" for line in MEAN.replace("mean", "middle").splitlines())
    text = f"{documented}\n{OTHER}\n{method}"
    found = {function.name: reason for function, reason in open_copies(functions_in(text), text).items()}
    assert found == {
        "average": "nearly the same as Numbers.middle, which stays in the file",
        "middle": "nearly the same as average, which stays in the file",
    }


def test_what_stands_inside_a_function_is_no_open_copy_of_it() -> None:
    inner = "".join(f"    {line}\n" for line in MEAN.splitlines())
    text = f"def outer(xs):\n{inner}    return mean\n"
    assert open_copies(functions_in(text), text) == {}


@given(st.text(max_size=60))
def test_any_text_has_shingles_and_is_like_itself(text: str) -> None:
    found = shingles(text)
    assert similarity(found, found) == (1.0 if found else 0.0)
