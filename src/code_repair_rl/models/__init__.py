"""The models: fetch the embedded one, load any, a tiny double for tests, merge and export.

Importing this package loads neither torch nor transformers; calling its functions does.
"""

from code_repair_rl.models.embedded import EMBEDDED_MODEL, embedded_model_folder, fetch_embedded_model
from code_repair_rl.models.fingerprint import weights_digest
from code_repair_rl.models.load import load_model, load_tokenizer
from code_repair_rl.models.precision import faster_dtype, settled
from code_repair_rl.models.process import release_memory, settle_process, trim_heap
from code_repair_rl.models.tiny import TINY_MODEL, tiny_model, tiny_tokenizer

__all__ = [
    "EMBEDDED_MODEL",
    "TINY_MODEL",
    "embedded_model_folder",
    "faster_dtype",
    "fetch_embedded_model",
    "load_model",
    "load_tokenizer",
    "release_memory",
    "settle_process",
    "settled",
    "tiny_model",
    "tiny_tokenizer",
    "trim_heap",
    "weights_digest",
]
