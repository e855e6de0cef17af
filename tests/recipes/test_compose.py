"""A recipe is read whole or refused with the key that is wrong."""

from pathlib import Path

import pytest
import yaml

from code_repair_rl.errors import BadInput
from code_repair_rl.recipes import checked, compose, expand, read, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_and_survives_writing(name: str, tmp_path: Path) -> None:
    recipe = compose(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert read(path) == recipe


def test_overrides_follow_hydras_grammar() -> None:
    recipe = compose("demo", ["grpo.learning_rate=1e-5", "model.lora={rank: 8}", "seed=3", "grpo.max_minutes=null"])
    assert recipe.grpo.learning_rate == 1e-5
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 8
    assert recipe.seed == 3
    assert recipe.grpo.max_minutes is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("grpo.lr=3", "unknown key 'grpo.lr'"),
        ("nonsense=1", "unknown key 'nonsense'"),
        ("grpo.steps=many", "grpo.steps"),
        ("grpo.temperature=0", "grpo.temperature"),
        ("sft.micro_batch_tokens=0", "sft.micro_batch_tokens"),
        ("grpo.steps", "grpo.steps"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override: str, said: str) -> None:
    with pytest.raises(BadInput, match=r".") as caught:
        compose("demo", [override])
    assert said in str(caught.value)
    assert caught.value.mend


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(BadInput) as caught:
        compose("no-such-recipe")
    assert "demo" in str(caught.value.mend)


def test_a_recipe_name_cannot_leave_the_library() -> None:
    with pytest.raises(BadInput):
        compose("../library/demo/../../schema")


def test_ones_own_file_is_composed_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ngrpo:\n  steps: 3\n")
    assert compose(str(path), ["grpo.tasks_per_step=2"]).grpo.tasks_per_step == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [("name: [unclosed\n", 2), ("name: mine\ngrpo:\n  steps: 3\n   seed: 1\n", 4), ("name: mine\n\tseed: 1\n", 2)],
)
def test_malformed_yaml_is_one_clear_error_with_its_line(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        compose(str(path))
    assert caught.value.where == f"{path}:{line}"
    assert "not YAML" in caught.value.what


@pytest.mark.parametrize(
    ("override", "meant", "there"),
    [
        ("model.lora={rnk: 8}", "model.lora.rank", "alpha"),
        ("agent={name: repair-loop, turns: 8}", "agent.max_turns", "at_once"),
        ("grpo.learning_rat=1", "grpo.learning_rate", "warmup_steps"),
    ],
)
def test_an_unknown_key_is_told_what_was_probably_meant(override: str, meant: str, there: str) -> None:
    with pytest.raises(BadInput) as caught:
        compose("demo", [override])
    assert f"was {meant!r} meant?" in caught.value.what
    assert there in str(caught.value.mend)


def test_a_recipe_that_builds_on_its_own_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text("defaults: [demo, _self_]\nseed: 3\n")
    with pytest.raises(BadInput, match="lead back to itself") as caught:
        compose(str(path))
    assert caught.value.where == str(path)


def test_a_recipe_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: mine\ndescription: für\n".encode("latin-1"))
    with pytest.raises(BadInput, match="UTF-8") as caught:
        compose(str(path))
    assert caught.value.where == str(path)


def test_a_yml_file_is_told_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text("name: mine\n")
    with pytest.raises(BadInput) as caught:
        compose(str(path))
    assert str(tmp_path / "mine.yaml") in str(caught.value.mend)


def test_a_damaged_saved_recipe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00 not yaml")
    with pytest.raises(BadInput, match=r"recipe\.yaml"):
        read(path)


def test_unknown_keys_name_the_ones_there_are() -> None:
    with pytest.raises(BadInput) as caught:
        checked({"name": "x", "sft": {"epochs": 3}}, where="x.yaml")
    assert "learning_rate" in str(caught.value.mend)


def test_a_sweep_is_every_combination() -> None:
    found = expand(["seed=0,1", "grpo.learning_rate=choice(1e-5,4e-5)", "name=x"])
    assert len(found) == 4
    assert {(one[0], one[2]) for one in found} == {("seed=0", "name=x"), ("seed=1", "name=x")}
    assert compose("demo", found[3]).grpo.learning_rate == 4e-5


def test_without_a_sweep_there_is_one_combination() -> None:
    assert expand(["seed=3"]) == [["seed=3"]]
    assert expand([]) == [[]]


def test_the_recipe_without_tests_keeps_the_rule_of_rewards() -> None:
    from code_repair_rl.pipelines.parts import reward_of

    recipe = compose("stack")
    assert reward_of(recipe).weights.style == 0.2
    assert not recipe.study


def test_the_studys_units_differ_from_the_claim_in_their_reward_only() -> None:
    from code_repair_rl.pipelines.parts import reward_of

    about = ("name", "description", "reward", "study", "control")
    claim = compose("cpu-hour", ["seed=2"])
    units = {name: compose(name, ["seed=2"]) for name in shipped_recipes() if name.startswith("study/")}
    assert len(units) == 3
    for unit in units.values():
        assert unit.model_copy(update={key: getattr(claim, key) for key in about}) == claim
        assert not unit.control
    assert [name for name, unit in units.items() if unit.study] == ["study/similarity-only"], "it breaks the rule"
    assert reward_of(units["study/similarity-only"]).weights.passed == 0.0
    assert reward_of(units["study/tests-only"]).weights.applied == 0.0


def test_ones_own_file_may_build_on_a_shipped_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [cpu-hour, _self_]\nname: mine\ngrpo:\n  steps: 3\n")
    found, claim = compose(str(path)), compose("cpu-hour")
    assert (found.grpo.steps, found.grpo.max_minutes) == (3, claim.grpo.max_minutes)
    assert found.sft == claim.sft
