"""Load any causal language model: the embedded one, a local folder (adapters included), or one from the hub."""

from __future__ import annotations

import json
import os
import re
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from code_repair_rl.errors import BadInput
from code_repair_rl.models.embedded import EMBEDDED_MODEL, embedded_model_folder, require_embedded_model
from code_repair_rl.models.tiny import TINY_MODEL, tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DTYPES = ("float32", "bfloat16", "float16")
_ADAPTER_CONFIG = "adapter_config.json"
_MISSING = "Found missing adapter keys"
"""How PEFT's warning begins."""


def load_model(
    name: str | Path = EMBEDDED_MODEL, *, dtype: str = "float32", trainable: bool = False, to_sample: bool = False
) -> PreTrainedModel:
    """Load a causal language model in evaluation mode.

    Args:
        name: `smollm2-135m-instruct` (embedded), `tiny-random` (double), a local model or LoRA adapter folder, or a
            hub id `owner/name`. Only the last may use the network.
        dtype: of the weights: `float32`, `bfloat16` or `float16`.
        trainable: keep a LoRA adapter's weights trainable (full models always are).
        to_sample: put it on this process's GPU, if there is one; else it stays on the CPU, from where a trainer places
            it as its job wants.

    Returns:
        The model; for an adapter folder a `PeftModel` around its base.

    Raises:
        BadInput: nothing there, not a model, or damaged.
    """
    if dtype not in _DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}", mend=f"use one of {', '.join(_DTYPES)}")
    model = _load(name, dtype, trainable)
    if to_sample:
        import torch

        if torch.cuda.is_available():
            model.to(torch.device("cuda", torch.cuda.current_device()))
    return model


def _load(name: str | Path, dtype: str, trainable: bool) -> PreTrainedModel:
    if str(name) == TINY_MODEL:
        return tiny_model(dtype=dtype)
    source = resolve(name)
    if isinstance(source, Path) and is_adapter(source):
        return _load_adapter(source, dtype, trainable)
    return _load_full(source, dtype)


def load_tokenizer(name: str | Path = EMBEDDED_MODEL) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model named as for `load_model`; an adapter folder without one has its base's.

    Raises:
        BadInput: nothing there, or damaged.
    """
    if str(name) == TINY_MODEL:
        return tiny_tokenizer()
    source = resolve(name)
    if isinstance(source, Path) and not (source / "tokenizer_config.json").is_file():
        if is_adapter(source):
            return load_tokenizer(base_of(source))
        raise BadInput(
            "the model folder has no tokenizer (tokenizer_config.json is missing)",
            where=str(source),
            mend="copy the tokenizer's files there from the model it was trained from",
        )
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **_network(source))
    except Exception as error:  # tokenizers raise bare Exception for damaged files
        raise _unreadable("tokenizer", source, error) from error
    return tokenizer


def resolve(name: str | Path) -> Path | str:
    """A local folder, absolute, or a hub id as a string."""
    text = str(name)
    if text == EMBEDDED_MODEL:
        return require_embedded_model()
    path = Path(text).expanduser()
    if path.is_dir():
        _require_model_folder(path)
        return path.absolute()  # an adapter keeps it as its base's name, and may be loaded from elsewhere
    if path.exists():
        raise BadInput("this is a file, and a model is a folder", where=text, mend="name the folder that holds it")
    if _HUB_ID.fullmatch(text) and isinstance(name, str):
        return text
    raise BadInput(
        "no such model",
        where=text,
        mend=f"name {EMBEDDED_MODEL!r}, a folder that exists, or a hub id such as Qwen/Qwen2.5-Coder-0.5B-Instruct",
    )


def is_adapter(folder: Path) -> bool:
    """Whether a model's folder holds an adapter."""
    return (folder / _ADAPTER_CONFIG).is_file()


def _require_model_folder(path: Path) -> None:
    for config in (path / "config.json", path / _ADAPTER_CONFIG):
        if not config.is_file():
            continue
        try:
            if not isinstance(json.loads(config.read_text(encoding="utf-8")), dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise BadInput(
                f"the model's configuration is damaged ({error})", where=str(config), mend=_mend_for(path)
            ) from error
        return
    raise BadInput(
        "this folder is not a model (neither config.json nor adapter_config.json is there)",
        where=str(path),
        mend="name a folder written by save_pretrained: a checkpoint of a run, or a model downloaded from the hub",
    )


def _load_full(source: Path | str, dtype: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a second's work needs none, and it would tear our own displays
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, dtype), output_loading_info=True, **_network(source)
        )
    except Exception as error:  # safetensors, torch and the configuration classes each raise their own
        raise _unreadable("model", source, error) from error
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if absent:
        raise BadInput(
            f"{len(absent)} weights are missing or do not fit the configuration, the first {absent[0]}",
            where=str(source),
            mend=_mend_for(source),
        )
    model.eval()
    return model


def _load_adapter(folder: Path, dtype: str, trainable: bool) -> PreTrainedModel:
    from peft import PeftModel

    base = load_model(base_of(folder), dtype=dtype)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", _MISSING)  # PEFT would go on with an adapter that is not the trained one
            model: Any = PeftModel.from_pretrained(base, str(folder), is_trainable=trainable)
    except Exception as error:  # as above
        raise _unreadable("adapter", folder, error) from error
    model.eval()
    return model


def base_of(folder: Path) -> str:
    """What an adapter folder says it adapts; the embedded model is found again wherever the cache folder is now.

    Raises:
        BadInput: it does not say.
    """
    base = json.loads((folder / _ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise BadInput(
            "the adapter does not say which model it adapts",
            where=str(folder / _ADAPTER_CONFIG),
            mend='set "base_model_name_or_path" to the model it was trained on',
        )
    path = Path(base)
    is_embedded = path == embedded_model_folder() or (path.name == EMBEDDED_MODEL and not path.is_dir())
    return EMBEDDED_MODEL if is_embedded else base


def name_base(folder: Path) -> None:
    """Say in the folder of a new adapter what it adapts, where PEFT had no name for it: of the tiny double, which is
    the one model that does not come from a folder or the hub."""
    config = folder / _ADAPTER_CONFIG
    if not config.is_file():
        return
    told = json.loads(config.read_text(encoding="utf-8"))
    if not told.get("base_model_name_or_path"):
        config.write_text(json.dumps({**told, "base_model_name_or_path": TINY_MODEL}, indent=2), encoding="utf-8")


def _network(source: Path | str) -> dict[str, bool]:
    """Keyword arguments that keep a local folder local; a hub id may reach out, without telemetry."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return {"local_files_only": isinstance(source, Path)}


def _unreadable(part: str, source: Path | str, error: Exception) -> BadInput:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    said = textwrap.shorten(first_line, 200, placeholder=" …")
    return BadInput(f"the {part} cannot be loaded ({said})", where=str(source), mend=_mend_for(source))


def _mend_for(source: Path | str) -> str:
    if isinstance(source, str):
        return "check the id, the network and (for gated models) that you are logged in; a local folder works offline"
    if source.name == EMBEDDED_MODEL:
        return f"remove {source} and run `crrl model fetch`"
    return "fetch or train it again; an earlier checkpoint of the same run may be whole"
