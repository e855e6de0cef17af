"""What the sections of a recipe make: its model, its tasks, its agent, its grader, its reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.recipes import AgentSection, Recipe, SandboxSection
from code_repair_rl.rewards import Reward, RewardWeights
from code_repair_rl.rollouts import Engine
from code_repair_rl.rollouts.agent import Agent
from code_repair_rl.rollouts.ask import fitting
from code_repair_rl.runs import RunListener
from code_repair_rl.tasks import Split, Task, load_tasks
from code_repair_rl.tasks.classification import load_as_asked
from code_repair_rl.tasks.difficulty import PassRate, easiest_first, hardest_first, pass_rates, within
from code_repair_rl.tasks.draw import draw

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from code_repair_rl.rollouts.local import LocalEngine
    from code_repair_rl.rollouts.vllm import VllmEngine


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to be sampled from and trained."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    engine: LocalEngine | VllmEngine


def load(recipe: Recipe, *, to_sample: bool = False, served: bool = False) -> Loaded:
    """The recipe's model, its tokenizer, and an engine that samples from these very weights.

    Args:
        recipe: whose model and launch settings are taken.
        to_sample: nothing will be trained, so that the model may go to the GPU at once, where there is one.
        served: whether the recipe's server, if it names one, samples. It holds what a trainer has sent it, and nothing
            else: only where weights are sent may it answer for this model.
    """
    from code_repair_rl.models import load_model, load_tokenizer, settle_process
    from code_repair_rl.rollouts.local import LocalEngine, stop_ids
    from code_repair_rl.rollouts.vllm import VllmEngine

    settle_process(recipe.threads)
    tokenizer = load_tokenizer(recipe.model.name)
    model = load_model(recipe.model.name, trainable=True, to_sample=to_sample)
    if served and recipe.launch.vllm is not None:
        return Loaded(model, tokenizer, VllmEngine(recipe.launch.vllm, tokenizer, stop_ids=stop_ids(model, tokenizer)))
    copy_dtype = "bfloat16" if recipe.model.in_bf16 else None
    return Loaded(model, tokenizer, LocalEngine(model, tokenizer, copy_dtype=copy_dtype))


def require_parts(recipe: Recipe, *, tasks: bool = True, data: bool = False) -> None:
    """See that the recipe's parts are there, before a run is begun that would then be kept from them.

    Args:
        recipe: of the run to come.
        tasks: False where they may still have to be made, or are not asked for.
        data: whether `sft.data`, if it is named, will be learnt from.

    Raises:
        BadInput: as `reward_of` and `agent_of`; or there are no such tasks, or no such data.
    """
    reward_of(recipe)
    agent_of(recipe.agent)
    if tasks:
        load_tasks(recipe.tasks.name, limit=1)
    if data and recipe.sft.data is not None and not Path(recipe.sft.data).is_file():
        raise BadInput("sft.data: there is no such file", where=recipe.sft.data, mend="make it with crrl curate")


def training_tasks(recipe: Recipe, engine: Engine, listener: RunListener | None = None) -> list[Task]:
    """The tasks of the train split that fit into the recipe's prompt budget and its range of pass rates, in its order.

    Args:
        listener: told how many are used, and how many prompts are too long (`tasks/used`, `tasks/too_long`).

    Raises:
        BadInput: none fits, or the pass rates of the recipe's model were not recorded.
    """
    rates = _rates(recipe)
    every = load_as_asked(recipe.tasks.name, recipe.tasks.labels, split=Split.TRAIN)
    low, high = recipe.tasks.pass_rates
    rated = within(every, rates, lowest=low, highest=high) if (low, high) != (0.0, 1.0) else every
    found = draw(rated, recipe.tasks.limit, recipe.seed)
    if not found:
        raise BadInput(
            f"none of the {len(every)} training tasks has a pass rate of {recipe.tasks.rated_by} in [{low}, {high}]"
            if every
            else "the set has no training tasks",
            where="tasks",
            mend="widen tasks.pass_rates, or record more with `crrl tasks difficulty`" if every else None,
        )
    ordered = {"easiest-first": easiest_first, "hardest-first": hardest_first}.get(recipe.tasks.order)
    found = ordered(found, rates) if ordered is not None else found
    agent = agent_of(recipe.agent)
    kept, left_out = fitting(found, engine, recipe.tasks.hint, recipe.tasks.max_prompt_tokens, agent)
    if not kept:
        raise BadInput(
            f"all {left_out} training tasks have prompts of more than {recipe.tasks.max_prompt_tokens} tokens",
            where="tasks.max_prompt_tokens",
            mend="raise it",
        )
    if listener is not None:
        listener.on_metrics(0, {"tasks/used": len(kept), "tasks/too_long": left_out})
    return kept


def _rates(recipe: Recipe) -> Mapping[str, PassRate]:
    """The recorded pass rates by which the recipe chooses and orders tasks; none where it does not.

    Raises:
        BadInput: none were recorded for its model and hint level.
    """
    name = recipe.tasks.rated_by
    if name is None:
        return {}
    rates = pass_rates(name, recipe.tasks.hint)
    if not rates:
        raise BadInput(
            f"no pass rates of {name} with the hint {recipe.tasks.hint} were recorded",
            where="tasks.rated_by",
            mend="evaluate the model on the train split and run `crrl tasks difficulty EVALUATION`",
        )
    return rates


def agent_of(section: AgentSection | None) -> Agent | None:
    """Who works on tasks in a recipe with this section; None where the model is asked for single answers.

    Raises:
        BadInput: an adapter is named that is not there.
    """
    from code_repair_rl.rollouts.agent_programs import program_named
    from code_repair_rl.rollouts.repair_loop import RepairLoop

    if section is None:
        return None
    if section.name == "repair-loop":
        return RepairLoop(section.max_turns, section.undo, section.max_feedback_characters)
    from code_repair_rl.rollouts.jailed_agent import JailedAgent

    return JailedAgent(
        program_named(section.name),
        max_turns=section.max_turns,
        deadline_seconds=section.deadline_seconds,
        context_tokens=section.context_tokens,
        concurrency=section.at_once,
    )


def grader_of(section: SandboxSection) -> Grader:
    """The grader that a recipe with this section asks for."""
    if section.ray is not None:
        from code_repair_rl.grading.ray_grader import RayGrader

        return RayGrader(section.ray, section.backend, section.workers)
    return Grader(backend=section.backend, workers=section.workers)


def reward_of(recipe: Recipe) -> Reward:
    """The reward that the recipe's weights make.

    Raises:
        BadInput: an unknown term, or weights that break the rule that passing outranks failing outside a study; or one
            that means nothing where an agent works.
    """
    weights = RewardWeights.from_recipe({**recipe.reward, "study": recipe.study})
    if weights.length and recipe.agent is not None:
        raise BadInput(
            "an agent's answers have no one length to hold against the known-good one's",
            where="reward.length",
            mend="leave it out; reward.turns pays for fewer answers, reward.economy for a small edit",
        )
    return Reward(weights)
