"""`crrl` as a test runs it."""

from typer.testing import CliRunner

from code_repair_rl.cli.app import app


def crrl(*arguments: str, code: int = 0) -> str:
    """Its standard output; what it raises comes out as it is."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout
