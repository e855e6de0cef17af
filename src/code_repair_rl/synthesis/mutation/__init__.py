"""Bugs as people write them: libcst operators that change one place of a Python source."""

from code_repair_rl.synthesis.mutation.mutate import OPERATORS, Mutant, mutants, name_of, sampled_mutants

__all__ = ["OPERATORS", "Mutant", "mutants", "name_of", "sampled_mutants"]
