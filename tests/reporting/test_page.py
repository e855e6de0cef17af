"""The report as a person meets it, in a real browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from code_repair_rl.reporting import write_report
from code_repair_rl.reporting.curves import step_figures
from code_repair_rl.runs import RunDir
from tests.reporting.browser import Browser, chromium
from tests.reporting.recorded import HOSTILE, recorded_run, rollout

ALL_DRAWN = """(() => {
    const left = [...document.querySelectorAll('.plot')].find((plot) => !plot.querySelector('.main-svg'));
    left?.scrollIntoView();
    return !left;
})()"""
"""A chart is drawn when it comes into sight: each look goes to the next that was not yet."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [recorded_run(tmp_path_factory.mktemp("runs") / f"seed-{seed}", seed=seed) for seed in range(2)]
    return write_report(runs)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    profile = tmp_path_factory.mktemp("profile")
    with chromium(profile) as found:
        found.size(1280, 800)
        yield found
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_goes_wrong(browser: Browser) -> Iterator[None]:
    """No console error, no request but for the page itself, and no model text that came to life, in any test."""
    browser.errors.clear()
    browser.requests.clear()
    yield
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "about:", "blob:"))] == []
    assert browser.run("window.hacked") is None


def url(page: Path, link: str = "") -> str:
    return page.as_uri() + (f"#{link}" if link else "")


def test_the_overview_has_the_table_and_the_comparisons(browser: Browser, page: Path) -> None:
    browser.open(url(page))
    assert browser.run("document.querySelectorAll('#summary tbody tr').length") == 6
    assert "pass@4" in browser.run("document.querySelector('#summary thead').innerText")
    assert "<script>" in browser.run("document.querySelector('#summary').innerText")
    assert browser.run("document.querySelectorAll('.comparison').length") > 3
    assert "95 % interval" in browser.run("document.querySelector('.comparison').innerText")
    assert "edit precision" in browser.run("document.querySelector('#summary thead').innerText")
    text = browser.run("document.getElementById('main').innerText")
    assert "Does the reward pay for the truth?" in text
    assert "No failing answer reaches the reward of a passing one (0.100 against 1.000)." in text
    titles = browser.run("[...document.querySelectorAll('.chart h3')].map((h) => h.textContent).join('|')")
    for title in ("by mutation operator", "by length of the code", "by difficulty", "Reward against truth"):
        assert title in titles
    # Scrolled to, each is drawn, with both runs in it.
    browser.wait(ALL_DRAWN)
    names = "[...document.querySelectorAll('.plot')].map((plot) => plot.data.map((trace) => trace.name))"
    drawn = browser.run(names)
    assert any(found == ["seed-0", "seed-1"] for found in drawn)
    assert any({"seed-0: base", "seed-1: grpo"} <= set(found) for found in drawn)


def test_the_charts_are_drawn(browser: Browser, page: Path) -> None:
    browser.open(url(page, "curves"))
    browser.wait("document.querySelectorAll('.plot svg .trace, .plot svg .scatterlayer path').length > 5")
    labels = browser.run("[...document.querySelectorAll('.chart h3')].map((h) => h.textContent).join('|')")
    assert "Pass rate" in labels
    assert "loss/policy" in labels
    assert "Reward by term" in labels
    assert "Surprise" in labels
    plots = "[...document.querySelectorAll('.chart')]"
    browser.wait(f"{plots}.slice(0, 3).every((chart) => chart.querySelector('.main-svg'))")
    # Bands are drawn around the mean reward: one for each run.
    reward = f"{plots}.find((chart) => chart.textContent.startsWith('Reward, mean')).querySelector('.plot')"
    assert browser.run(f"{reward}.data.filter((trace) => trace.fill === 'toself').length") == 2


def test_what_was_measured_is_what_is_shown_under_the_pointer(browser: Browser, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "long", {"name": "long"}, resume=False)
    measured = [0.25 if step % 2 else 0.5 for step in range(1, 13)]
    for step, value in enumerate(measured, start=1):
        run.append_metrics(step, {"train/loss": value, "validation/pass_rate": value})
        run.write_rollouts(step, [rollout(np.random.default_rng(step), step, 0, i, value, "text") for i in range(8)])
    browser.open(url(write_report([run]), "curves"))
    browser.wait(ALL_DRAWN)
    traces = """[...document.querySelectorAll('.chart')].map((chart) => [chart.querySelector('h3').textContent,
        chart.querySelector('.plot').data.filter((trace) => trace.fill !== 'toself').map((trace) => [
            trace.name, trace.y, trace.hoverinfo || 'shown'])])"""
    drawn = dict(browser.run(traces))
    assert drawn["validation/pass_rate"] == [["long", measured, "shown"]]
    [points, line] = drawn["train/loss"]
    assert points == ["long", measured, "shown"]
    assert line[2] == "skip"
    [[_, passing, shown]] = next(found for title, found in drawn.items() if title.startswith("Pass rate"))
    assert passing == [step_figures(step, run.rollouts(step))["pass"][0] for step in range(1, 13)]
    assert shown == "shown"
    # The line says what it is, also where a single run needs no legend.
    named = dict(
        browser.run("""[...document.querySelectorAll('.chart')].filter((chart) => chart.querySelector('.legend')).map(
            (chart) => [chart.querySelector('h3').textContent, chart.querySelector('.legend').textContent])""")
    )
    assert "mean of the last 5 steps" in named["train/loss"]
    assert "validation/pass_rate" not in named


def test_filtering_narrows_the_list_and_sorting_orders_it(browser: Browser, page: Path) -> None:
    browser.open(url(page, "rollouts"))
    total = browser.run("report.viewer.shown.length")
    browser.run("""{const s = document.getElementById('filter-outcome');
        s.value = [...s.options].find((o) => o.textContent === 'passed').value;
        s.dispatchEvent(new Event('change'));}""")
    passed = browser.run("report.viewer.shown.map((p) => report.viewer.data.row(p).outcome)")
    assert 0 < len(passed) < total
    assert set(passed) == {"passed"}
    assert browser.run("document.getElementById('status').textContent") == f"{len(passed)} of {total}"
    browser.run("report.viewer.setFilter('outcome', '')")
    browser.run("document.querySelector('#head [data-by=reward]').click()")
    rewards = browser.run("report.viewer.shown.map((p) => report.viewer.data.row(p).reward)")
    known = [r for r in rewards if r is not None]
    assert known == sorted(known, reverse=True)
    assert rewards[len(known) :] == [None] * (total - len(known))
    browser.run("document.querySelector('#head [data-by=reward]').click()")
    assert browser.run("report.viewer.data.row(report.viewer.shown[0]).reward") == min(known)
    browser.press("/")
    browser.press("1")
    browser.press("7")
    tasks = browser.run(
        "report.viewer.shown.map((p) => (({task, problem}) => task + problem)(report.viewer.data.row(p)))"
    )
    assert 0 < len(tasks) < total
    assert all("17" in task for task in tasks)


def test_a_rollout_opens_by_its_link_and_shows_everything(browser: Browser, page: Path) -> None:
    browser.open(url(page, "rollouts"))
    place = browser.run("""report.viewer.data.columns.step.findIndex((s, p) =>
        s === 3 && report.viewer.data.row(p).outcome === 'failed')""")
    link = browser.run(f"report.viewer.data.link({place})")
    browser.open(url(page, link))
    browser.wait(f"document.getElementById('detail').dataset.place === '{place}'")
    text = browser.run("document.getElementById('detail').innerText")
    assert "step 3" in text
    assert "window.hacked = 1" in text
    assert browser.run("document.querySelectorAll('#detail img, #detail a, #detail script, #detail link').length") == 0
    assert "⟨U+202E⟩" in text
    assert "total += value" in browser.run("document.querySelectorAll('.diff .side')[1].innerText")
    assert "total -= value" in browser.run("document.querySelectorAll('.diff .side')[0].innerText")
    assert browser.run("document.querySelectorAll('.diff mark').length") > 0
    assert browser.run("document.querySelectorAll('.siblings button').length") == 4
    answer = browser.run("document.querySelector('#detail [data-part=answer]').textContent")
    assert HOSTILE.split("\u202e")[0] in answer


def test_a_conversation_shows_what_was_said_and_folds_its_tools(browser: Browser, page: Path) -> None:
    browser.open(url(page, "r/1/train/2/1/0"))
    browser.wait("document.querySelector('#detail .turns') && document.getElementById('detail').dataset.place")
    assert browser.run("document.querySelectorAll('#detail .turn').length") == 3
    assert browser.run("document.querySelectorAll('#detail .turn.assistant > pre').length") == 2
    for folded in ("#detail .call", "#detail .turn.tool"):
        assert browser.run(f"document.querySelector('{folded}').open") is False
        assert browser.run(f"document.querySelector('{folded} pre').checkVisibility()") is False
    browser.run("document.querySelector('#detail .call summary').click()")
    assert "window.hacked" in browser.run("document.querySelector('#detail .call pre').innerText")
    assert browser.run("document.querySelectorAll('.turns img, .turns a, .turns script, .turns link').length") == 0
    browser.open(url(page, "r/1/train/2/1/1"))
    browser.wait("document.getElementById('detail').dataset.place")
    assert browser.run("document.querySelector('#detail .turns')") is None


def test_a_group_stands_side_by_side(browser: Browser, page: Path) -> None:
    browser.open(url(page, "r/1/train/3/0/1"))
    browser.wait(
        "document.getElementById('detail').dataset.place && document.querySelectorAll('.sibling').length === 4"
    )
    cards = browser.run("[...document.querySelectorAll('.sibling')].map((card) => card.innerText)")
    rows = browser.run("report.viewer.data.siblings(report.viewer.selected)")
    for card, row in zip(cards, rows, strict=True):
        assert row["outcome"] in card
        assert "no reward" in card if row["reward"] is None else f"reward {row['reward']:.2f}" in card
    assert browser.run("document.querySelectorAll('.sibling.current').length") == 1
    other = browser.run("document.querySelectorAll('.sibling')[2].dataset.place")
    browser.run("document.querySelectorAll('.sibling button')[2].click()")
    browser.wait(f"document.getElementById('detail').dataset.place === '{other}'")
    assert browser.run("location.hash") == "#r/1/train/3/0/2"


def test_a_rollout_is_held_beside_another_one(browser: Browser, page: Path) -> None:
    browser.open(url(page, "r/1/train/1/0/0"))
    browser.wait("document.getElementById('detail').dataset.place === '0'")
    browser.press("p")
    browser.wait("document.getElementById('pinned').dataset.place === '0'")
    assert browser.run("document.getElementById('pinned').checkVisibility()")
    browser.press("ArrowDown")
    browser.wait("document.getElementById('detail').dataset.place === '1'")
    assert browser.run("document.getElementById('pinned').dataset.place") == "0"
    widths = browser.run("['pinned', 'detail'].map((id) => document.getElementById(id).clientWidth)")
    assert min(widths) > 500
    browser.press("p")
    browser.wait("!document.getElementById('pinned').checkVisibility()")
    assert browser.run("document.getElementById('list').checkVisibility()")


def test_tasks_stand_side_by_side_over_runs_and_lead_to_their_answers(browser: Browser, page: Path) -> None:
    browser.open(url(page))
    browser.press("4")
    browser.wait("document.getElementById('matrix')")
    assert browser.run("document.querySelectorAll('#matrix tbody tr').length") == 60
    heads = browser.run("document.querySelector('#matrix thead').innerText")
    assert "seed-0: base" in heads
    assert "seed-1: grpo" in heads
    browser.run("document.querySelector('#matrix [data-by=change]').click()")
    changes = "[...document.querySelectorAll('#matrix tbody tr')].map((row) => row.lastChild.textContent)"
    found = [float(text.replace("−", "-").replace("+", "")) for text in browser.run(changes)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]
    browser.run("document.querySelector('#matrix td button').click()")
    browser.wait("document.getElementById('detail').dataset.place")
    assert browser.run("report.viewer.data.row(report.viewer.selected).source") in ("base", "sft", "grpo")
    others = browser.run("[...document.querySelectorAll('.elsewhere button')].map((button) => button.textContent)")
    assert others
    before = browser.run("report.viewer.selected")
    browser.run("document.querySelector('.elsewhere button').click()")
    browser.wait(f"report.viewer.selected !== {before}")
    task = "report.viewer.data.row({}).task".format
    assert browser.run(task(before)) == browser.run(task("report.viewer.selected"))


def test_keys_move_through_the_list_and_the_group(browser: Browser, page: Path) -> None:
    browser.open(url(page))
    browser.press("j")
    browser.wait("document.getElementById('detail').dataset.place === '0'")
    browser.press("j")
    browser.wait("document.getElementById('detail').dataset.place === '1'")
    browser.press("k")
    browser.wait("document.getElementById('detail').dataset.place === '0'")
    browser.press("h")
    browser.wait("document.getElementById('detail').dataset.place === '3'")
    browser.press("l")
    browser.wait("document.getElementById('detail').dataset.place === '0'")
    assert browser.run("location.hash") == "#r/1/train/1/0/0"
    assert browser.run("document.querySelectorAll('.row[aria-selected=true]').length") == 1
    browser.press("/")
    browser.press("j")
    assert browser.run("report.viewer.search.value") == "j"
    browser.press("Escape")
    browser.press("1")
    browser.wait("document.getElementById('summary')")


def test_markup_that_got_into_the_page_all_the_same_would_not_run(browser: Browser, page: Path) -> None:
    browser.open(url(page))
    browser.run("""(() => {const node = document.createElement('div');
        node.innerHTML = '<img src="data:image/png;base64,AAAA" onerror="window.hacked = 9">'
            + '<img src="http://127.0.0.1:9/x.png">';
        document.body.append(node);})()""")
    browser.wait("document.querySelectorAll('img').length === 2")
    browser.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
    assert browser.run("window.hacked") is None
    assert any("Content Security Policy" in error for error in browser.errors)
    assert browser.blocked == ["http://127.0.0.1:9/x.png"]
    browser.errors.clear()
    browser.requests.clear()


def test_dark_and_light_differ_and_stay_readable(browser: Browser, page: Path) -> None:
    browser.open(url(page))
    contrast = """(() => {
        const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
        const light = (c) => { const [r, g, b] = c.match(/\\d+/g).map(Number).map(channel);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const style = getComputedStyle(document.body);
        const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), style.backgroundColor]; })()"""
    first, ground = browser.run(contrast)
    browser.press("t")
    second, other_ground = browser.run(contrast)
    assert ground != other_ground
    assert min(first, second) > 7  # WCAG 2.2, level AAA for text


@pytest.mark.slow
def test_ten_thousand_rollouts_fit(browser: Browser, tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "large", steps=157, groups=8, group_size=8)  # how fast: benchmarks/report.py
    # The kernel's peak of this very program: getrusage's would be that of the process it was started from.
    code = (
        "import re, sys; from pathlib import Path; from code_repair_rl.reporting import write_report\n"
        "write_report([Path(sys.argv[1])])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 300e6
    path = run.report_path
    assert path.stat().st_size < 25e6
    browser.open(url(path, "rollouts"))
    assert browser.run("report.index.rollouts.count") > 10_000
    browser.run("report.viewer.setFilter('text', 'comparison')")
    browser.run("report.viewer.sortBy('reward')")
    assert browser.run("report.viewer.lastFilterMilliseconds") > 0
