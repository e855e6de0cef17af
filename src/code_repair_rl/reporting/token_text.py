"""Which characters of an answer each sampled token wrote, so that they can be shaded by log-probability.

Needs the model's `tokenizer.json` only, read by the `tokenizers` library; where there is none, or where the pieces do
not spell the answer, the report draws the log-probabilities without the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    import tokenizers


class TokenText:
    """Splits answers into the pieces that their tokens wrote."""

    def __init__(self, tokenizer_file: Path) -> None:
        """Read a `tokenizer.json`.

        Raises:
            BadInput: absent or damaged.
        """
        import tokenizers

        try:
            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the library raises bare Exception
            raise BadInput(f"cannot be read as a tokenizer ({error})", where=str(tokenizer_file)) from error
        self._special = {i for i, t in self._tokenizer.get_added_tokens_decoder().items() if t.special}
        self._pieces: dict[int, bytes] = {}

    def lengths(self, token_ids: Sequence[int], text: str) -> list[int] | None:
        """How many characters of `text` each token wrote; None where the pieces do not spell `text`.

        A character whose bytes span several tokens counts for the one that completes it; a special token writes none.
        """
        if any(token_id < 0 for token_id in token_ids):  # a remote model's, which told none
            return None
        lengths: list[int] = []
        spelt: list[str] = []
        held = b""
        for token_id in token_ids:
            held += b"" if token_id in self._special else self._piece(token_id)
            try:
                done = held.decode()
            except UnicodeDecodeError:
                if len(held) < 4:
                    lengths.append(0)
                    continue
                done = held.decode(errors="replace")
            held = b""
            lengths.append(len(done))
            spelt.append(done)
        whole = "".join(spelt)
        return lengths if whole == text else None

    def _piece(self, token_id: int) -> bytes:
        known = self._pieces.get(token_id)
        if known is None:
            token = self._tokenizer.id_to_token(token_id)
            known = _byte_level(token) if token is not None else b""
            if known is None:
                known = str(self._tokenizer.decode([token_id], skip_special_tokens=False)).encode()
            self._pieces[token_id] = known
        return known


def _byte_level(token: str) -> bytes | None:
    """The bytes of a byte-level BPE token; None for a token of another alphabet."""
    alphabet = _alphabet()
    try:
        return bytes(alphabet[character] for character in token)
    except KeyError:
        return None


@cache
def _alphabet() -> dict[str, int]:
    """Byte-level BPE's printable stand-ins for bytes (GPT-2: A. Radford et al. 2019, `bytes_to_unicode`).

    Printable Latin-1 bytes stand for themselves, the others for code points from 256 up, in order.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


def find_tokenizer(run_path: Path) -> Path | None:
    """A `tokenizer.json` within a run: of its model, of a checkpoint, or of the model of a stage within it."""
    patterns = ("tokenizer.json", "model/tokenizer.json", "checkpoints/*/tokenizer.json", "*/model/tokenizer.json")
    return next((path for pattern in patterns for path in sorted(run_path.glob(pattern), reverse=True)), None)
