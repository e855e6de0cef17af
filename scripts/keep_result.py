"""Keep what finished journeys found: `python scripts/keep_result.py runs/cpu-hour-0 …`, then commit docs/results*.

Writes docs/results/RECIPE-seedN.json for each run named, and the tables of docs/results.md anew from all that is kept
there, the classifiers' (`keep_classification.py`) included.
"""

import json
import sys
from pathlib import Path

from code_repair_rl.errors import CrrlError
from code_repair_rl.home import write_atomically
from code_repair_rl.pipelines.classification_results import table
from code_repair_rl.pipelines.records import keep, read_records
from code_repair_rl.pipelines.results import page
from code_repair_rl.runs import RunDir

DOCS = Path(__file__).parent.parent / "docs"
MARK = "<!-- TABLES: written by scripts/keep_result.py from docs/results/*.json -->"


def main() -> None:
    """Keep the runs named on the command line, and write the page."""
    for named in sys.argv[1:]:
        print(keep(RunDir.open(named), DOCS / "results"))
    path = DOCS / "results.md"
    said = path.read_text(encoding="utf-8").partition(MARK)[0]
    classifiers = [
        json.loads(one.read_text("utf-8")) for one in sorted((DOCS / "results/classification").glob("*.json"))
    ]
    tables = [page(read_records(DOCS / "results")), *map(table, classifiers)]
    write_atomically(path, f"{said}{MARK}\n\n" + "\n\n".join(one.strip() for one in tables) + "\n")
    print(path)


if __name__ == "__main__":
    try:
        main()
    except CrrlError as error:
        sys.exit(f"error: {error}")
