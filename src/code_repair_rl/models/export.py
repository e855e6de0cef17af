"""Export: adapters merged into their base, an ordinary transformers folder, and a model card that says what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.home import built_atomically, require_free_space
from code_repair_rl.models.embedded import EMBEDDED_MODEL
from code_repair_rl.models.load import load_model, load_tokenizer

EMBEDDED_LICENCE = "apache-2.0"
"""Of SmolLM2-135M-Instruct, as its authors give it on the hub."""


@dataclass(frozen=True, slots=True)
class CardResult:
    """One evaluation, as it stands on the card."""

    task_set: str
    split: str
    hint: str
    pass_at: Mapping[int, tuple[float, float, float]]
    """k to value and 95 % interval, as shares."""
    tasks: int
    problems: int
    isolated: bool
    """False: the answers ran without isolation."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a model card tells."""

    title: str
    base: str
    """The model it was trained from, as the recipe names it."""
    licence: str
    """Identifier for the hub (`apache-2.0`); `unknown` where nobody said."""
    recipe: str = ""
    """The resolved recipe, YAML; empty where the model did not come from a run."""
    task_set: str = ""
    results: Sequence[CardResult] = field(default=())

    def render(self) -> str:
        """The card as Markdown with the hub's front matter."""
        base = "HuggingFaceTB/SmolLM2-135M-Instruct" if self.base == EMBEDDED_MODEL else self.base
        front = [f"license: {self.licence}", "library_name: transformers", "pipeline_tag: text-generation"]
        if "/" in base and not Path(base).is_absolute():
            front.append(f"base_model: {base}")
        front.append("tags: [code-repair, grpo]")
        parts = ["---\n" + "\n".join(front) + "\n---", f"# {self.title}", f"Trained from {base} with CodeRepairRL."]
        if self.licence == "unknown":
            parts.append("**Licence:** not stated; the base model's terms apply. Look them up before passing this on.")
        parts.append("## Results\n\n" + _results(self.results))
        if self.task_set:
            parts.append(
                f"## Data\n\nTask set `{self.task_set}`. Train, validation and test splits share no problem; intervals "
                "are clustered by problem."
            )
        if self.recipe:
            parts.append(f"## Recipe\n\n```yaml\n{self.recipe.strip()}\n```")
        parts.append(
            "## Use\n\nAsk with the prompts of `code_repair_rl.tasks.prompts`: the answer is a list of SEARCH/REPLACE "
            "blocks. Run what it writes in a sandbox only."
        )
        return "\n\n".join(parts) + "\n"


def _results(results: Sequence[CardResult]) -> str:
    if not results:
        return "Not evaluated."
    ks = sorted({k for result in results for k in result.pass_at})
    lines = ["| tasks | hint | " + " | ".join(f"pass@{k} (95 % interval)" for k in ks) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(ks))
    for result in results:
        cells = [_share(result.pass_at.get(k)) for k in ks]
        note = "" if result.isolated else ", **answers ran without isolation**"
        name = f"{result.task_set} {result.split}: {result.tasks} tasks, {result.problems} problems{note}"
        lines.append(f"| {name} | {result.hint} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(found: tuple[float, float, float] | None) -> str:
    return "–" if found is None else f"{found[0]:.1%} [{found[1]:.1%}, {found[2]:.1%}]"


def export_model(source: str | Path, destination: Path, card: Card, *, dtype: str = "float32") -> Path:
    """Write the model to `destination`, whole or not at all: merged weights, tokenizer, card (`README.md`).

    Args:
        source: as for `load_model`; an adapter folder is merged into its base, in fp32.
        destination: must be absent or empty.
        card: what the card tells.
        dtype: of the weights written.

    Raises:
        BadInput: the source is no model, or the destination is taken or lies below a file.
        MachineryFailed: no room on the disk.
    """
    import torch

    destination = destination.expanduser().absolute()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise BadInput("is there already", where=str(destination), mend="name a folder that does not exist")
    for parent in destination.parents:
        if parent.exists() and not parent.is_dir():
            raise BadInput("this is a file", where=str(parent), mend="name a folder that is not below a file")
    model: Any = load_model(source)
    tokenizer = load_tokenizer(source)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model = model.to(getattr(torch, dtype))
    destination.parent.mkdir(parents=True, exist_ok=True)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    require_free_space(destination.parent, size + 2**25, "exporting the model")
    with built_atomically(destination) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        (scratch / "README.md").write_text(card.render(), encoding="utf-8")
    return destination


def push_model(folder: Path, repository: str, *, private: bool) -> str:
    """Upload an exported folder to the hub; the only thing here that reaches out.

    Returns:
        The page's address.

    Raises:
        MachineryFailed: the hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        hub = HfApi()
        address = hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(folder_path=folder, repo_id=repository)
    except Exception as error:  # network, credentials and the hub's own errors alike
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MachineryFailed(
            f"the model could not be pushed ({first_line})",
            where=repository,
            mend=f"log in with `hf auth login` and check the network; the export itself is whole in {folder}",
        ) from error
    return str(address)
