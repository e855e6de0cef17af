"""Keep what an experiment with classifiers found, and print its tables for docs/results.md.

    python scripts/keep_classification.py NAME --eval RUN:EVALUATION … --training STAGE=RUN …

Writes docs/results/classification/NAME.json; each evaluation is compared with the one named before it.
"""

import argparse
import sys
from pathlib import Path

from code_repair_rl.errors import CrrlError
from code_repair_rl.pipelines.classification_results import keep, record, table
from code_repair_rl.runs import RunDir

FOLDER = Path(__file__).parent.parent / "docs" / "results" / "classification"


def main() -> None:
    """Keep one experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--eval", action="append", default=[], metavar="RUN:EVALUATION")
    parser.add_argument("--training", action="append", default=[], metavar="STAGE=RUN")
    given = parser.parse_args()
    evaluations = [(RunDir.open(run), name) for run, _, name in (one.rpartition(":") for one in given.eval)]
    trainings = {stage: RunDir.open(run) for stage, _, run in (one.partition("=") for one in given.training)}
    kept = record(given.name, evaluations, trainings)
    print(keep(FOLDER, kept))
    print(table(kept))


if __name__ == "__main__":
    try:
        main()
    except CrrlError as error:
        sys.exit(f"error: {error}")
