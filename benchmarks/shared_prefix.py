"""Forward and backward pass over groups of completions: shared prefix against TRL's own and against plain padding.

Three ways to the log-probabilities of the same completions and their gradients, in turn in one run, on one model:

- `ours`: `completion_logprobs`, each prompt computed once;
- `trl`: what TRL's GRPOTrainer computes, `add_fused_lm_head` over padded rows;
- `plain`: `plain_logprobs`, padded rows too, but logits at completion tokens only (a leaner baseline than TRL's).

The ratios are medians of wall time under bf16 autocast, the best precision of all three here. `details` holds seconds
(wall and processor time; on a busy machine the latter is steadier), the bytes kept for the backward pass, and how far
the gradients are from the fp32 truth.

    python benchmarks/shared_prefix.py [--quick] [--json] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from trl.trainer.utils import add_fused_lm_head

from code_repair_rl.models import fetch_embedded_model, load_model, tiny_model
from code_repair_rl.training.shared_prefix import completion_logprobs, plain_logprobs


@dataclass(frozen=True)
class Case:
    prompt: int
    completion: int
    groups: int
    size: int
    alike: int = 0
    """Tokens that all completions of a group begin with; random ones agree in nothing."""

    @property
    def name(self) -> str:
        plain = f"{self.groups} x {self.size}, prompt {self.prompt}, completion {self.completion}"
        return f"{plain}, the first {self.alike} alike" if self.alike else plain


HEADLINE = (Case(200, 40, 1, 8), Case(800, 64, 1, 8))
SWEEP = (
    Case(200, 40, 1, 8, alike=20),
    Case(200, 40, 1, 2),
    Case(200, 40, 1, 16),
    Case(200, 40, 2, 8),
    Case(2000, 64, 1, 2),
)
"""Sized for the others: padded rows keep about 1 MB a token for the backward pass."""


@dataclass(frozen=True)
class Measured:
    wall_seconds: float
    processor_seconds: float
    kept_mib: float


Way = Callable[[nn.Module, list[list[int]], list[list[list[int]]]], Tensor]


def ours(model: nn.Module, prompts: list[list[int]], groups: list[list[list[int]]]) -> Tensor:
    return completion_logprobs(model, prompts, groups, with_entropy=True).logprobs


def plain(model: nn.Module, prompts: list[list[int]], groups: list[list[list[int]]]) -> Tensor:
    return plain_logprobs(model, prompts, groups, with_entropy=True).logprobs


def trl(model: nn.Module, prompts: list[list[int]], groups: list[list[list[int]]]) -> Tensor:
    """As TRL's `_get_per_token_logps_and_entropies`; the rows of a case are all of one length."""
    rows = [prompt + answer for prompt, group in zip(prompts, groups, strict=True) for answer in group]
    ids = torch.tensor(rows)
    width = len(groups[0][0])
    labels = ids.clone()
    labels[:, :-width] = -100
    found = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, fused_lm_head=True)
    return found.log_probs[:, -width:]


WAYS: dict[str, Way] = {"ours": ours, "trl": trl, "plain": plain}


def batch(case: Case, vocabulary: int) -> tuple[list[list[int]], list[list[list[int]]]]:
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, vocabulary, (count,), generator=generator).tolist()

    prompts = [tokens(case.prompt) for _ in range(case.groups)]
    beginnings = [tokens(case.alike) for _ in range(case.groups)]
    return prompts, [
        [beginning + tokens(case.completion - case.alike) for _ in range(case.size)] for beginning in beginnings
    ]


def once(way: Way, model: nn.Module, case: Case, precision: str) -> Measured:
    """One forward and backward pass. Kept bytes are the distinct storages saved for the backward pass."""
    prompts, groups = batch(case, model.config.vocab_size)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.zero_grad()
    wall, processor = time.perf_counter(), time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logprobs = way(model, prompts, groups)
        weights = torch.linspace(-1.0, 1.0, logprobs.numel()).view_as(logprobs)
        loss = (weights * logprobs).mean()
    loss.backward()
    return Measured(time.perf_counter() - wall, time.process_time() - processor, sum(kept.values()) / 2**20)


def measure(model: nn.Module, case: Case, precision: str, repeats: int) -> dict[str, Measured]:
    """The ways in turn, so that a busy spell of the machine hits all of them; the first round warms up."""
    rounds = [{name: once(way, model, case, precision) for name, way in WAYS.items()} for _ in range(repeats + 1)][1:]
    return {
        name: Measured(
            statistics.median(found[name].wall_seconds for found in rounds),
            statistics.median(found[name].processor_seconds for found in rounds),
            rounds[0][name].kept_mib,
        )
        for name in WAYS
    }


def gradient_errors(model: nn.Module, case: Case) -> dict[str, float]:
    """Relative distance of the whole gradient from the fp32 plain one."""

    def gradient(way: Way, precision: str) -> Tensor:
        once(way, model, case, precision)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    truth = gradient(plain, "fp32")
    wanted = [("ours", "fp32"), ("ours", "bf16"), ("trl", "bf16"), ("plain", "bf16")]
    return {f"{name} {p}": float((gradient(WAYS[name], p) - truth).norm() / truth.norm()) for name, p in wanted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat, no sweep")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--fp32", action="store_true", help="measure in fp32, too")
    parser.add_argument(
        "--tiny", action="store_true", help="the tiny random model: checks the script, measures nothing"
    )
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.tiny:
        model: nn.Module = tiny_model()
    else:
        model = load_model(str(fetch_embedded_model()))
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))

    cases = HEADLINE if arguments.quick else (*HEADLINE, *SWEEP)
    precisions = ("bf16", "fp32") if arguments.fp32 else ("bf16",)
    ratios: dict[str, float] = {}
    rows = []
    for precision in precisions:
        for case in cases:
            found = measure(model, case, precision, 1 if arguments.quick else 3)
            over = {name: found[name].wall_seconds / found["ours"].wall_seconds for name in ("trl", "plain")}
            if case in HEADLINE and precision == "bf16":
                ratios |= {f"forward+backward over {name}, {case.name}": ratio for name, ratio in over.items()}
            rows.append(
                {"case": case.name, "precision": precision, "over_trl": over["trl"], "over_plain": over["plain"]}
                | {name: asdict(value) for name, value in found.items()}
            )
    errors = gradient_errors(model, HEADLINE[0])
    details = {"threads": torch.get_num_threads(), "cases": rows, "gradient_error_against_fp32": errors}
    if arguments.json:
        print(json.dumps({"ratios": ratios, "details": details}))
        return
    show(rows, errors)


def show(rows: list[dict[str, object]], errors: dict[str, float]) -> None:
    table = Table(title="forward + backward, median seconds (kept for the backward pass, MiB)")
    for column in ("groups x completions, tokens", "precision", "ours", "TRL", "plain", "over TRL", "over plain"):
        table.add_column(column)
    for row in rows:
        cells = []
        for name in WAYS:
            value: dict[str, float] = row[name]  # type: ignore[assignment]
            cells.append(f"{value['wall_seconds']:.2f} ({value['kept_mib']:.0f})")
        table.add_row(
            str(row["case"]), str(row["precision"]), *cells, f"{row['over_trl']:.1f}x", f"{row['over_plain']:.1f}x"
        )
    console = Console()
    console.print(table)
    for name, error in errors.items():
        console.print(f"gradient of {name}: {error:.2g} relative from the fp32 truth")


if __name__ == "__main__":
    main()
