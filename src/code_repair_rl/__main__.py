"""`python -m code_repair_rl` is `crrl`."""

from code_repair_rl.cli import main

main()
