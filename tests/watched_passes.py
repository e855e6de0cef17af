"""How many tokens packed passes compute: noted for tests of what is computed once."""

from types import ModuleType

import pytest


def tokens_of_passes(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the number of tokens of each packed pass that `module` makes from now on."""
    computed: list[int] = []
    forward = module.packed_forward

    def watched(model, layout, token_ids, *rest, **named):
        computed.append(len(token_ids))
        return forward(model, layout, token_ids, *rest, **named)

    monkeypatch.setattr(module, "packed_forward", watched)
    return computed
