"""Coding agents as programs: how each is told its task and where its model is. None of them is changed.

Whatever speaks the OpenAI chat API can be trained on: write an `AgentProgram` (see `docs/agents.md`).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from code_repair_rl.errors import BadInput
from code_repair_rl.home import home

ENVIRONMENT_VARIABLE = "CRRL_AGENTS"
"""Names a virtual environment that agents are installed in."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an agent is given to reach its model."""

    base_url: str
    """With `/v1` at its end."""
    api_key: str
    model: str
    deadline_seconds: float
    """Of the whole episode. The jail ends the agent then; an agent that knows can finish before."""
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Launch:
    """A program to start in the work copy's folder."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Written before it starts: absolute paths below /tmp, outside of the work copy."""


class AgentProgram(Protocol):
    """A coding agent that runs as a program of its own."""

    @property
    def name(self) -> str:
        """What recipes call it."""
        ...

    @property
    def python_module(self) -> str | None:
        """The module it is installed as; None where it is no Python program."""
        ...

    def launch(self, task: str, endpoint: Endpoint, python: str) -> Launch:
        """How to start it.

        Args:
            task: what it is to do, in words.
            endpoint: its model.
            python: the interpreter that `python_module` is installed for. Start it with `-E`: what `PYTHONPATH` names
                is for the repository's code, which the agent runs.
        """
        ...


@dataclass(frozen=True, slots=True)
class MiniSweAgent:
    """mini-swe-agent (PyPI), version 2: one `bash` tool."""

    name: str = "mini-swe-agent"
    python_module: str | None = "minisweagent"

    def launch(self, task: str, endpoint: Endpoint, python: str) -> Launch:
        """See `AgentProgram.launch`."""
        options = {"-m": f"openai/{endpoint.model}", "-t": task, "-l": "0", "-o": "/tmp/trajectory.json"}
        settings = ("mini.yaml", f"model.model_kwargs.api_base={endpoint.base_url}")
        return Launch(
            argv=(
                python, "-E", "-m", "minisweagent", "-y", "--exit-immediately", "--agent-class", "default",
                *(part for option in options.items() for part in option),
                *(part for setting in settings for part in ("-c", setting)),
            ),
            environment={
                **_for_litellm(endpoint),
                "MSWEA_CONFIGURED": "true",
                "MSWEA_SILENT_STARTUP": "1",
                "MSWEA_GLOBAL_CONFIG_DIR": "/tmp/mini-swe-agent",
                "MSWEA_COST_TRACKING": "ignore_errors",
                # What the gateway refuses once it refuses again.
                "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "1",
            },
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NanoAgent:
    """nano-agent (PyPI), version 5: `shell` and `apply_patch`."""

    name: str = "nano-agent"
    python_module: str | None = "nano"
    most_tool_calls: int = 50

    def launch(self, task: str, endpoint: Endpoint, python: str) -> Launch:
        """See `AgentProgram.launch`."""
        options = {
            "--model": f"openai/{endpoint.model}",
            "--api_base": endpoint.base_url,
            "--token_limit": str(min(endpoint.context_tokens, 1 << 20)),
            "--tool_limit": str(self.most_tool_calls),
            "--time_limit": str(max(1, int(endpoint.deadline_seconds))),
        }
        argv = (python, "-E", "-m", "nano.cli", task, "--no-log", *(part for pair in options.items() for part in pair))
        return Launch(argv, environment=_for_litellm(endpoint))


PROGRAMS: Mapping[str, AgentProgram] = {program.name: program for program in (MiniSweAgent(), NanoAgent())}
"""The agents that recipes can name."""


def program_named(name: str) -> AgentProgram:
    """The agent of that name, or an adapter of the user's as `module:Class`.

    Raises:
        BadInput: there is none.
    """
    if name in PROGRAMS:
        return PROGRAMS[name]
    module, _, attribute = name.partition(":")
    try:
        made: AgentProgram = getattr(importlib.import_module(module), attribute)()
        if not (isinstance(made.name, str) and hasattr(made, "python_module") and callable(made.launch)):
            raise TypeError("it has no name, python_module and launch")
    except Exception as error:  # importing a module runs it
        raise BadInput(
            f"there is no agent {name!r} ({error})",
            where="agent.name",
            mend=f"use {', '.join(PROGRAMS)}, or module:Class of an adapter on PYTHONPATH",
        ) from error
    return made


def python_for(program: AgentProgram, folder: Path | None = None) -> str:
    """The interpreter that an agent is installed for.

    Args:
        program: the agent.
        folder: its virtual environment; else the one that `CRRL_AGENTS` names, `agents` below the cache folder, or the
            environment of this interpreter, whichever has it first.

    Raises:
        BadInput: it is installed in none of them.
    """
    if program.python_module is None:
        return sys.executable
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    places = [folder] if folder is not None else [*([Path(named)] if named else []), home() / "agents"]
    for place in places:
        if any(place.glob(f"lib/python3*/site-packages/{program.python_module}/__init__.py")):
            return str(place.absolute() / "bin" / "python")
    if folder is None and importlib.util.find_spec(program.python_module) is not None:
        return sys.executable
    raise BadInput(
        f"{program.name} is not installed",
        where=" or ".join(map(str, places)),
        mend=f"make a virtual environment, `pip install {program.name}` there, and set {ENVIRONMENT_VARIABLE} to it",
    )


def environment_of(python: str) -> tuple[str, ...]:
    """Folders that have to be visible for an interpreter of a virtual environment to run."""
    folder = Path(python).parent.parent
    return (str(folder),) if (folder / "pyvenv.cfg").is_file() else ()


def _for_litellm(endpoint: Endpoint) -> dict[str, str]:
    """Both agents reach their model through litellm, which else would fetch price lists first."""
    return {
        "OPENAI_API_KEY": endpoint.api_key,
        "OPENAI_BASE_URL": endpoint.base_url,
        "OPENAI_API_BASE": endpoint.base_url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DO_NOT_TRACK": "1",
    }
