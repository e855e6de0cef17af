"""`crrl serve`: a model behind an OpenAI-compatible endpoint, on this machine."""

from __future__ import annotations

import os

import typer

TOKEN_VARIABLE = "CRRL_SERVE_TOKEN"
"""Environment variable with the token that clients authenticate with."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve)


def serve(
    model: str = typer.Option(..., "--model", "-m", help="A model's name, folder (adapters too) or hub id."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(8000, min=0, max=65535, help="Port to listen on; 0 takes any free one."),
    temperature: float = typer.Option(
        1.0, min=0.0, max=2.0, help="Of every answer, whatever clients ask; 0 is greedy."
    ),
    max_new_tokens: int = typer.Option(512, min=1, help="Longest answer, whatever clients ask."),
    dtype: str = typer.Option("bfloat16", help="What sampling computes in: bfloat16 or float32."),
    name: str = typer.Option("policy", help="What clients call the model."),
    threads: int | None = typer.Option(None, min=1, help="Torch's threads; by default its own choice."),
    allow_remote: bool = typer.Option(False, "--allow-remote", help="Let other machines in, where --host does."),
) -> None:
    """Serve a model at `/v1/chat/completions` until interrupted: tools, streams, several choices, stop texts.

    Clients authenticate with the token that is printed, or with the one in the environment variable CRRL_SERVE_TOKEN.
    """
    from code_repair_rl.cli.eval import load_engine
    from code_repair_rl.models.process import settle_process
    from code_repair_rl.rollouts import Sampling
    from code_repair_rl.rollouts.gateway import Gateway

    settle_process(threads)
    gateway = Gateway(
        load_engine(model, dtype),
        sampling=Sampling(temperature, max_new_tokens),
        model=name,
        token=os.environ.get(TOKEN_VARIABLE) or None,
        host=host,
        port=port,
        open_access=True,
        allow_remote=allow_remote,
    )
    with gateway:
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"base URL: http://{shown}:{gateway.port}/v1")
        typer.echo(f"model:    {name}")
        typer.echo(f"token:    {'that of ' + TOKEN_VARIABLE if os.environ.get(TOKEN_VARIABLE) else gateway.token}")
        typer.echo("serving until interrupted (Ctrl-C)")
        try:
            gateway.serve_until(lambda: False)
        except KeyboardInterrupt:
            typer.echo(f"\n{gateway.requests} requests answered in {gateway.batches} batches")
