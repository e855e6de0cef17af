"""Errors say what, where and the mend, and survive a trip to another process."""

import pickle

import pytest

from code_repair_rl.errors import BadInput, CrrlError, MachineryFailed


def test_an_error_reads_place_then_fault_then_mend() -> None:
    error = BadInput("unknown key `lern_rate`", where="recipe.yaml:3", mend="did you mean `learn_rate`?")
    assert str(error) == "recipe.yaml:3: unknown key `lern_rate`\n  mend: did you mean `learn_rate`?"


def test_place_and_mend_may_be_missing() -> None:
    assert str(MachineryFailed("the worker died")) == "the worker died"
    assert str(BadInput("empty", where="a.jsonl")) == "a.jsonl: empty"


@pytest.mark.parametrize(("kind", "code"), [(BadInput, 2), (MachineryFailed, 3)])
def test_the_kind_of_error_decides_the_exit_code(kind: type[CrrlError], code: int) -> None:
    assert issubclass(kind, CrrlError)
    assert kind("what").exit_code == code


@pytest.mark.parametrize("kind", [BadInput, MachineryFailed])
def test_an_error_crosses_process_boundaries_whole(kind: type[CrrlError]) -> None:
    # worker processes hand their errors back pickled: keyword-only arguments would break an ordinary exception
    error = kind("what", where="where", mend="mend")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.what, again.where, again.mend) == ("what", "where", "mend")


class _WithMore(BadInput):
    def __init__(self, line: int) -> None:
        super().__init__("bad line", where=f"file:{line}")
        self.line = line


def test_so_does_an_error_with_arguments_of_its_own() -> None:
    again = pickle.loads(pickle.dumps(_WithMore(7)))
    assert again.line == 7
    assert str(again) == "file:7: bad line"
