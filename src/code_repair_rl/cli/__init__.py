"""The `crrl` command: thin — parse, wire, call, print.

Each command lives in a module of this package that defines `add_to(app)`; heavy imports stay inside the commands,
so that `crrl --help` answers at once.
"""

from code_repair_rl.cli.app import app, main

__all__ = ["app", "main"]
