"""The options that say who works on tasks, for the commands that take them, and what comes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from code_repair_rl.rollouts.agent import Agent

MAX_TURNS: Any = typer.Option(
    None, "--max-turns", min=1, help="Answers per attempt of the agent at most: 3 of repair-loop, 30 of a program."
)
DEADLINE: Any = typer.Option(
    None, "--deadline", min=1.0, help="Seconds of one attempt of an agent's program, all it waits for included."
)
CONTEXT_TOKENS: Any = typer.Option(
    None, "--context-tokens", min=1, help="Longest conversation of an agent's program; the model's own by default."
)
AT_ONCE: Any = typer.Option(None, "--at-once", min=1, help="Attempts of an agent's program at once.")


def chosen_agent(name: str | None, *, endpoint: str | None = None, **settings: object) -> Agent | None:
    """The agent of that name; None for no name.

    Args:
        name: `repair-loop` …
        endpoint: the server whose model it works with, if one does.
        settings: of a recipe's section `agent`; what is None is left at its default.

    Raises:
        BadInput: there is no such agent; or a conversation's tokens are to be bounded, but a server counts them.
    """
    from pydantic import ValidationError

    from code_repair_rl.pipelines.parts import agent_of
    from code_repair_rl.recipes import AgentSection

    if endpoint is not None and settings.get("context_tokens") is not None:
        raise BadInput(
            "the tokens of a conversation are not known where a server answers",
            where="--context-tokens",
            mend="leave it out: the server's own context ends an attempt",
        )
    if name is None:
        return None
    try:
        given = {key: value for key, value in settings.items() if value is not None}
        section = AgentSection.model_validate({"name": name, **given})
    except ValidationError as error:
        mend = "use repair-loop, mini-swe-agent, nano-agent, or module:Class"
        raise BadInput(f"there is no agent {name!r}", where="--agent", mend=mend) from error
    return agent_of(section)
