"""Sampling groups of completions: our decoding loop against transformers' `generate`.

The same weights (bf16 copies, the best precision of both on CPUs that have it), the same prompts, exactly the same
number of tokens from each row, full distribution at temperature 1, in turn in one run. The ratios are of median wall
time for the whole call, prefill included. `details` holds seconds (wall and processor), tokens per second, the prefill
alone (a call for one token).

    python benchmarks/decoding.py [--quick] [--json] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from code_repair_rl.models import fetch_embedded_model, load_model, load_tokenizer, tiny_model, tiny_tokenizer
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.local import LocalEngine


@dataclass(frozen=True)
class Case:
    prompts: int
    size: int
    prompt: int
    completion: int

    @property
    def name(self) -> str:
        return f"{self.prompts} x {self.size}, prompt {self.prompt}, completion {self.completion}"


HEADLINE = (Case(6, 8, 180, 40),)
SWEEP = (Case(1, 8, 180, 40), Case(8, 8, 180, 40), Case(6, 8, 800, 40))


def timed(call: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def ways(engine: LocalEngine, model: Any, case: Case) -> dict[str, Callable[[int], object]]:
    """The two ways, as functions of the number of new tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (case.prompts, case.prompt), generator=generator)
    prompts = ids.tolist()

    def ours(count: int) -> object:
        sampling = Sampling(temperature=1.0, max_new_tokens=count, seed=0)
        return engine.generate(prompts, completions_per_prompt=case.size, sampling=sampling)

    def transformers(count: int) -> object:
        with torch.no_grad():
            return model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=case.size,
                max_new_tokens=count,
            )

    return {"ours": ours, "transformers": transformers}


def measure(engine: LocalEngine, model: Any, case: Case, repeats: int) -> dict[str, Any]:
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "transformers": []}
    prefill: dict[str, list[float]] = {"ours": [], "transformers": []}
    calls = ways(engine, model, case)
    for way in calls.values():
        way(2)  # warms up
    for _ in range(repeats):
        for name, way in calls.items():
            found[name].append(timed(lambda way=way: way(case.completion)))
            prefill[name].append(timed(lambda way=way: way(1))[0])
    tokens = case.prompts * case.size * case.completion
    row: dict[str, Any] = {"case": case.name}
    for name, values in found.items():
        wall = statistics.median(value[0] for value in values)
        row[name] = {
            "wall_seconds": wall,
            "processor_seconds": statistics.median(value[1] for value in values),
            "tokens_per_second": tokens / wall,
            "prefill_wall_seconds": statistics.median(prefill[name]),
        }
    row["ratio"] = row["transformers"]["wall_seconds"] / row["ours"]["wall_seconds"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the headline case, one repeat")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--tiny", action="store_true", help="the tiny random model: checks the script, measures nothing"
    )
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.tiny:
        model: Any = tiny_model(dtype="bfloat16")
        tokenizer = tiny_tokenizer()
    else:
        folder = str(fetch_embedded_model())
        model, tokenizer = load_model(folder, dtype="bfloat16"), load_tokenizer(folder)
    model.generation_config.eos_token_id = None  # every row to its full length, in both ways
    engine = LocalEngine(model, tokenizer)
    engine.stop_ids = ()

    cases = HEADLINE if arguments.quick else (*HEADLINE, *SWEEP)
    rows = [measure(engine, model, case, 1 if arguments.quick else 3) for case in cases]
    headline = {case.name for case in HEADLINE}
    ratios = {f"sampling over generate, {row['case']}": row["ratio"] for row in rows if row["case"] in headline}
    if arguments.json:
        print(json.dumps({"ratios": ratios, "details": {"threads": torch.get_num_threads(), "cases": rows}}))
        return
    table = Table(title="sampling, tokens per second (prefill seconds)")
    for column in ("prompts x completions, tokens", "ours", "generate", "ratio"):
        table.add_column(column)
    for row in rows:
        cells = [
            f"{row[name]['tokens_per_second']:.0f} ({row[name]['prefill_wall_seconds']:.2f})"
            for name in ("ours", "transformers")
        ]
        table.add_row(row["case"], *cells, f"{row['ratio']:.1f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
