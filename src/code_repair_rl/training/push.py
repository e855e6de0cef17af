"""Bringing the policy's weights to a vLLM server: TRL's client, fed one module at a time. Not yet run on GPUs.

The transfer itself (NCCL between trainer and server) is TRL's and vLLM's. Ours is what is sent: merged weights under
the plain model's names, gathered module by module, so that a model in shards is never whole in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from code_repair_rl.errors import BadInput
from code_repair_rl.training import together
from code_repair_rl.training.weight_stream import named_shapes, weights

if TYPE_CHECKING:
    from transformers import Trainer


class WeightClient(Protocol):
    """The part of `trl.generation.vllm_client.VLLMClient` that is used."""

    def update_named_params(
        self, metadata: list[tuple[str, str, list[int]]], named_params: Iterator[tuple[str, Tensor]]
    ) -> None:
        """Announce names, dtypes and shapes, then stream the tensors in that order."""
        ...


class ServerPush:
    """Sends a trainer's weights to a server; every process calls it, the first one talks to the server."""

    def __init__(self, address: str, connect: Callable[[str], WeightClient] | None = None) -> None:
        """Name the server.

        Args:
            address: `http://host:port`.
            connect: makes the client; None: TRL's, which needs vLLM and a GPU here.
        """
        self.address = address
        self._connect = connect or _trl_client
        self._client: WeightClient | None = None

    def __call__(self, trainer: Trainer) -> None:
        """Send the weights as they are now, in bf16."""
        if together.is_first() and self._client is None:
            self._client = self._connect(self.address)
        model: nn.Module = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        stream = weights(model, torch.bfloat16)
        if self._client is None:
            _drain(stream)  # takes part in gathering
            return
        metadata = [(name, "bfloat16", list(shape)) for name, shape in named_shapes(model)]
        self._client.update_named_params(metadata, stream)


def _drain(stream: Iterable[Any]) -> None:
    for _ in stream:
        pass


def require_sender() -> None:
    """Refuse, before anything is loaded, what could not send weights later.

    Raises:
        BadInput: vLLM is not installed, or there is no GPU.
    """
    from trl.import_utils import is_vllm_available

    if not is_vllm_available() or not torch.cuda.is_available():
        raise BadInput(
            "weights are sent to a vLLM server between GPUs, by vLLM's own code",
            where="launch.vllm",
            mend="pip install 'vllm>=0.22,<=0.31' on a machine with a GPU, or leave launch.vllm out",
        )


def _trl_client(address: str) -> WeightClient:
    from trl.generation.vllm_client import VLLMClient

    require_sender()
    client: Any = VLLMClient(base_url=address, connection_timeout=240.0)
    client.init_communicator(device=torch.device("cuda", torch.cuda.current_device()))
    return client  # type: ignore[no-any-return]
