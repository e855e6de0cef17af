"""The report of a run of 10,000 rollouts: time and memory to build, size, first view and filtering in a real browser.

    python benchmarks/report.py [--quick] [--json]

Each figure stands beside its limit; the ratios are limit / measured (above 1: within it). The rollouts are recorded
ones in size and shape: 60 words an answer, four tests, a diff, a conversation for every eighth. Without a Chromium only
building is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.reporting.browser import NAMES, Browser, chromium
from tests.reporting.recorded import recorded_run

LIMITS = {
    "build seconds": 20.0,
    "build peak MB": 300.0,
    "file MB": 25.0,
    "first view ms": 2000.0,
    "slowest filter ms": 200.0,
    "slowest sort ms": 200.0,
}

_BUILD = """
import json, resource, sys, time
from pathlib import Path
from code_repair_rl.reporting import write_report
began = time.monotonic()
path = write_report([Path(sys.argv[1])])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": time.monotonic() - began, "peak": peak, "bytes": path.stat().st_size}))
"""

_FILTERS = (("text", "comparison"), ("text", "humaneval/17"), ("text", ""), ("outcome", "0"), ("outcome", ""))


def built(run: Path) -> dict[str, Any]:
    """The report made in a process of its own, with its time, peak memory and size."""
    done = subprocess.run([sys.executable, "-c", _BUILD, str(run)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def looked_at(browser: Browser, report: Path) -> dict[str, float]:
    """What a person waits for."""
    browser.size(1280, 800)
    views, filters, sorts = [], [], []
    for _ in range(3):
        browser.open(report.as_uri() + "#rollouts")
        views.append(browser.run("report.readyMilliseconds"))
    for name, value in _FILTERS:
        browser.run(f"report.viewer.setFilter({json.dumps(name)}, {json.dumps(value)})")
        filters.append(browser.run("report.viewer.lastFilterMilliseconds"))
    for column in ("reward", "task", "tokens", "logprob"):
        browser.run(f"report.viewer.sortBy({json.dumps(column)})")
        sorts.append(browser.run("report.viewer.lastFilterMilliseconds"))
    began = time.monotonic()
    browser.run("report.viewer.open(report.viewer.data.count - 1)")
    opened = 1000 * (time.monotonic() - began)
    return {
        "first view ms": sorted(views)[1],
        "slowest filter ms": max(filters),
        "slowest sort ms": max(sorts),
        "open a rollout ms": opened,
    }


def measured(steps: int) -> dict[str, float]:
    """All figures of a run of `64 * steps` rollouts and what belongs to it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        run = recorded_run(Path(folder) / "run", steps=steps, groups=8, group_size=8)
        found = built(run.path)
        seen: dict[str, float] = {}
        if any(map(shutil.which, NAMES)):
            with chromium(Path(folder) / "profile") as browser:
                seen = looked_at(browser, run.report_path)
            if browser.errors:
                raise SystemExit("\n".join(browser.errors))
    return {
        "rollouts": float(64 * steps),
        "build seconds": found["seconds"],
        "build peak MB": found["peak"] / 1e6,
        "file MB": found["bytes"] / 1e6,
        **seen,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,280 rollouts in place of 10,048")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measured(20 if options.quick else 157)
    ratios = {f"limit / {name}": limit / max(found[name], 1e-3) for name, limit in LIMITS.items() if name in found}
    if options.json:
        print(json.dumps({"ratios": ratios, "details": found | {"limits": LIMITS}}))
        return
    print(f"{found['rollouts']:.0f} rollouts")
    for name, value in found.items():
        if name != "rollouts":
            print(f"{name:22}{value:10.1f}" + (f"   limit {LIMITS[name]:.0f}" if name in LIMITS else ""))


if __name__ == "__main__":
    main()
