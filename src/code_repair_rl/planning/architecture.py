"""The figures of a model's architecture that memory and time follow from: no weights, no torch.

Dense decoders of the Llama family (Llama, Qwen2, Qwen3, SmolLM2, Mistral): grouped-query attention, gated MLP, RMSNorm.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FAMILY = ("llama", "qwen2", "qwen3", "mistral")
"""`model_type`s whose layers have exactly the matrices counted here."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A dense decoder's shape. Counts are of elements, not bytes."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Whether the head reuses the embedding's matrix."""
    qk_norm: bool = False
    """Whether queries and keys are normalised per head (Qwen3)."""
    qkv_bias: bool = False
    """Whether the projections of attention's input have biases (Qwen2)."""
    source: str = ""

    @property
    def query_width(self) -> int:
        """Elements of all heads' queries of one token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of all heads' keys (or values) of one token."""
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> int:
        """Elements of one layer's matrices: each is multiplied with every token once."""
        attention = 2 * self.hidden * self.query_width + 2 * self.hidden * self.kv_width
        return attention + 3 * self.hidden * self.intermediate

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer."""
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        biases = self.query_width + 2 * self.kv_width if self.qkv_bias else 0
        return self.layer_matrices + norms + biases

    @property
    def embedding(self) -> int:
        """Elements of the embedding, and of the head where it has its own."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.layer_parameters + self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def kv_per_token(self) -> int:
        """Elements of the key-value cache for one token."""
        return 2 * self.layers * self.kv_width

    def lora_parameters(self, rank: int) -> int:
        """Parameters of adapters of `rank` on every linear layer but the head: rank x (in + out) for each."""
        h, q, kv, i = self.hidden, self.query_width, self.kv_width, self.intermediate
        return self.layers * rank * ((h + q) + 2 * (h + kv) + (q + h) + 3 * (h + i))


def _qwen3(
    size: str, layers: int, hidden: int, intermediate: int, heads: int, *, tied: bool = False
) -> tuple[str, Architecture]:
    name = f"Qwen3-{size}"
    source = f"https://huggingface.co/Qwen/{name}/blob/main/config.json"
    return name.lower(), Architecture(
        name, layers, hidden, intermediate, heads, 8, 128, 151936, tied, qk_norm=True, source=source
    )


SHIPPED: dict[str, Architecture] = dict(
    [
        (
            "smollm2-135m-instruct",
            Architecture(
                "SmolLM2-135M-Instruct",
                30,
                576,
                1536,
                9,
                3,
                64,
                49152,
                True,
                source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/main/config.json",
            ),
        ),
        _qwen3("0.6B", 28, 1024, 3072, 16, tied=True),
        _qwen3("1.7B", 28, 2048, 6144, 16, tied=True),
        _qwen3("4B", 36, 2560, 9728, 32, tied=True),
        _qwen3("8B", 36, 4096, 12288, 32),
        _qwen3("14B", 40, 5120, 17408, 40),
        _qwen3("32B", 64, 5120, 25600, 64),
    ]
)
"""Architectures known without a file or the network, by name in lower case; the figures are their `config.json`s'."""


def architecture(name: str) -> Architecture:
    """The architecture that `name` stands for.

    Args:
        name: a shipped name (`Qwen3-8B`, with or without its owner), a `config.json` or a folder that holds one, or a
            hub id, whose `config.json` alone is then fetched.

    Raises:
        BadInput: nothing of that name, or not a dense decoder of the Llama family.
    """
    short = name.rpartition("/")[2].lower()
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        return from_config(_read(path), where=str(path))
    if short in SHIPPED:
        return SHIPPED[short]
    if _HUB_ID.fullmatch(name):
        return from_config(_fetched(name), where=name)
    known = ", ".join(shipped.name for shipped in SHIPPED.values())
    raise BadInput(
        "no such architecture", where=name, mend=f"name a config.json, a hub id (owner/name), or one of {known}"
    )


def from_config(config: dict[str, Any], *, where: str) -> Architecture:
    """An architecture from the content of a `config.json`.

    Raises:
        BadInput: a figure is missing or not a positive whole number, or the family is another.
    """
    kind = config.get("model_type")
    if kind not in _FAMILY:
        raise BadInput(
            f"{kind!r} is not a family whose memory and time are known here",
            where=f"{where}: model_type",
            mend=f"plan for one of {', '.join(_FAMILY)}, or for a dense model of the same size",
        )
    layers, hidden, heads = (_figure(config, key, where) for key in _KEYS[:3])
    intermediate, vocabulary = (_figure(config, key, where) for key in _KEYS[3:])
    kv_heads = _figure(config, "num_key_value_heads", where, default=heads)
    head_dim = _figure(config, "head_dim", where, default=max(1, hidden // heads))
    # transformers ties by default in these configurations, where the file says nothing: Llama and Qwen do not.
    tied = bool(config.get("tie_word_embeddings", False))
    return Architecture(
        where,
        layers,
        hidden,
        intermediate,
        heads,
        kv_heads,
        head_dim,
        vocabulary,
        tied,
        qk_norm=kind == "qwen3",
        qkv_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
        source=where,
    )


_KEYS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")


def _figure(config: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{value!r} is not a positive whole number", where=f"{where}: {key}")
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"the configuration cannot be read ({error})", where=str(path)) from error
    if not isinstance(found, dict):
        raise BadInput("the configuration is not an object", where=str(path))
    return found


def _fetched(hub_id: str) -> dict[str, Any]:
    """The `config.json` of a hub id: the only thing here that may use the network, and only where an id was named."""
    from huggingface_hub import hf_hub_download

    try:
        return _read(Path(hf_hub_download(hub_id, "config.json")))
    except BadInput:
        raise
    except Exception as error:  # the hub's client raises its own, httpx's and OSError
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"its config.json cannot be fetched ({first_line})",
            where=hub_id,
            mend="check the id and the network, or name a local config.json",
        ) from error
