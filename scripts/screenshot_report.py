"""Pictures of a report for the documentation, taken in a headless Chromium: overview, curves, rollouts, tasks, dark.

python scripts/screenshot_report.py runs/demo/report.html docs/images
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.reporting.browser import Browser, chromium

_DRAWN = "document.querySelectorAll('.plot .main-svg').length >= 6"
_TELLING = """(() => {
  const rows = report.viewer.shown.map((place) => report.viewer.data.row(place));
  const trained = rows.filter((row) => row.outcome === 'passed' && row.source === 'train');
  const passed = trained.length ? trained : rows.filter((row) => row.outcome === 'passed');
  const mixed = passed.find((row) => report.viewer.data.siblings(row.place).some((s) => s.outcome !== 'passed'));
  return (mixed || passed[0] || rows[0]).place; })()"""


def pictures(browser: Browser, report: Path, out: Path) -> None:
    """Take them."""
    browser.size(1400, 900)
    browser.open(report.resolve().as_uri())
    browser.wait("[...document.querySelectorAll('.plot')].slice(0, 2).every((plot) => plot.querySelector('.main-svg'))")
    browser.screenshot(out / "report-overview.png")
    browser.press("2")
    browser.wait(_DRAWN)
    browser.run("new Promise((done) => setTimeout(done, 500))")
    browser.screenshot(out / "report-curves.png")
    browser.press("3")
    place = browser.run(_TELLING)
    browser.run(f"report.viewer.open({place})")
    browser.wait(f"document.getElementById('detail').dataset.place === '{place}'")
    browser.screenshot(out / "report-rollout.png")
    browser.press("t")
    browser.screenshot(out / "report-rollout-dark.png")
    browser.press("t")
    browser.press("4")
    browser.wait("document.getElementById('matrix')")
    browser.run("document.querySelector('#matrix [data-by=change]')?.click()")
    browser.screenshot(out / "report-tasks.png")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, chromium(Path(profile)) as browser:
        pictures(browser, options.report, options.out)
    if browser.errors:
        sys.exit("\n".join(browser.errors))


if __name__ == "__main__":
    main()
