"""From words to a recipe: a named or given YAML file, composed and overridden with Hydra, checked by the schema."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from code_repair_rl.errors import BadInput
from code_repair_rl.recipes.schema import Recipe, Section

SHIPPED = Path(__file__).parent / "library"
"""The recipes that come with the package."""


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    paths = (path for path in SHIPPED.rglob("*.yaml") if not path.name.startswith("_"))  # those are parts of recipes
    return sorted(str(path.relative_to(SHIPPED).with_suffix("")) for path in paths)


def compose(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe `name` with Hydra overrides applied.

    Args:
        name: a shipped recipe (`"demo"`, `"study/similarity-only"`) or the path of a YAML file.
        overrides: in Hydra's grammar (`"grpo.learning_rate=1e-5"`, `"model.lora={rank: 8}"`).

    Raises:
        BadInput: no such recipe, malformed YAML or override, unknown key, value out of range.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = locate(name)
    folder, stem = path.parent, path.stem  # the file's own folder: below one, Hydra would nest its keys
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder.absolute()), version_base="1.3"):
            found_too = f"hydra.searchpath=[file://{SHIPPED}]"  # so that any file can build on a shipped recipe
            composed = hydra_compose(stem, overrides=[found_too, *(_addable(override) for override in overrides)])
        data = OmegaConf.to_container(composed, resolve=True)
    except yaml.MarkedYAMLError as error:
        raise _malformed(error, path) from error
    except UnicodeDecodeError as error:
        raise BadInput(
            "this recipe, or one that it builds on, is not UTF-8 text", where=str(path), mend="save it as UTF-8"
        ) from error
    except RecursionError as error:
        raise BadInput(
            "the recipe's `defaults` lead back to itself",
            where=str(path),
            mend="call the file otherwise than the recipes that it builds on",
        ) from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise BadInput(first_line, where=_place(name, overrides), mend="see `docs/recipes.md` for the keys") from error
    return checked(data, where=_place(name, overrides))


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of Hydra's sweep overrides (`seed=0,1,2`, `grpo.learning_rate=choice(1e-5,4e-5)`).

    Raises:
        BadInput: an override that Hydra cannot read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = [
            [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
            if one.is_sweep_override()
            else [given]
            for one, given in zip(parsed, overrides, strict=True)
        ]
    except HydraException as error:
        raise BadInput(
            str(error).strip().splitlines()[0], where=" ".join(overrides), mend="see `docs/recipes.md`"
        ) from error
    return [list(combination) for combination in itertools.product(*choices)]


def checked(data: Any, *, where: str) -> Recipe:
    """The recipe in `data`, every key and value checked.

    Raises:
        BadInput: naming the key, what is wrong with it, and the keys there are.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _explained(error, where) from error


def read(path: Path) -> Recipe:
    """The resolved recipe that a run directory keeps.

    Raises:
        BadInput: the file is absent or damaged.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput("this recipe cannot be read", where=str(path), mend="start the run anew") from error
    return checked(data, where=str(path))


def locate(name: str) -> Path:
    """The file of a recipe.

    Raises:
        BadInput: there is none, naming those that there are.
    """
    shipped = SHIPPED / f"{name}.yaml"
    if shipped.is_file() and shipped.resolve().is_relative_to(SHIPPED.resolve()):
        return shipped
    path = Path(name)
    if path.suffix == ".yaml" and path.is_file():
        return path.absolute()
    if path.suffix == ".yml" and path.is_file():
        raise BadInput("Hydra reads .yaml files only", where=name, mend=f"rename it to {path.with_suffix('.yaml')}")
    raise BadInput(
        f"there is no recipe {name!r}",
        where="recipe",
        mend=f"name one of {', '.join(shipped_recipes())}, or the path of a .yaml file",
    )


def _addable(override: str) -> str:
    # `++` sets a key whether or not the file mentions it; the schema then says whether it exists at all.
    return override if override[:1] in "+~" or "=" not in override else f"++{override}"


def _place(name: str, overrides: Sequence[str]) -> str:
    return " ".join([f"recipe {name}", *overrides])


def _malformed(error: yaml.MarkedYAMLError, path: Path) -> BadInput:
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}:{mark.line + 1}" if mark is not None else str(path)
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return BadInput(f"this is not YAML ({said})", where=where, mend="correct the line, or the one before it")


def _explained(error: ValidationError, where: str) -> BadInput:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *outer, last = map(str, problem["loc"])
        known = list(_section_at(outer).model_fields)
        near = difflib.get_close_matches(last, known, n=1)
        meant = f" (was {'.'.join([*outer, near[0]])!r} meant?)" if near else ""
        return BadInput(f"unknown key {key!r}{meant}", where=where, mend=f"use one of: {', '.join(known)}")
    message = problem["msg"].removeprefix("Value error, ")
    return BadInput(
        f"{key or 'recipe'}: {message} (got {problem.get('input')!r})", where=where, mend="correct the value"
    )


def _section_at(keys: Sequence[str]) -> type[Section]:
    """The section of a recipe that these keys lead to."""
    section: type[Section] = Recipe
    for key in keys:
        annotation = section.model_fields[key].annotation
        section = next(one for one in (annotation, *get_args(annotation)) if hasattr(one, "model_fields"))
    return section
