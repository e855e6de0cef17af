"""The journal of a long job: nothing that was put is lost, whatever became of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.synthesis.journal import Journal, digest_of

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(findings=st.dictionaries(st.text(), _JSON), torn=st.binary(max_size=20))
def test_what_was_put_is_read_back_and_a_torn_line_is_cut_off(
    tmp_path_factory: object, findings: dict[str, object], torn: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"  # type: ignore[attr-defined]
    journal = Journal(path)
    for key, finding in findings.items():
        journal.put(key, finding)
    if findings:
        with path.open("ab") as file:
            file.write(b'["half' + torn.replace(b"\n", b""))
    again = Journal(path)
    assert {key: again[key] for key in findings} == findings
    assert len(again) == len(findings)
    again.put("new", 1)
    assert Journal(path)["new"] == 1


def test_a_killed_writer_loses_nothing_that_it_had_put(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "j.jsonl"
    program = (
        "import sys\nfrom pathlib import Path\nfrom code_repair_rl.synthesis.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r}))\n"
        "for number in range(10**9):\n    journal.put(str(number), number)\n    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = [process.stdout.readline() for _ in range(200)][-1]
        os.kill(process.pid, signal.SIGKILL)
    assert Journal(path)[last.strip()] == int(last)


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    threads = [
        threading.Thread(target=lambda name=name: [journal.put(f"{name}-{n}", "x" * 500) for n in range(50)])
        for name in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Journal(tmp_path / "j.jsonl")) == 400
    journal.forget()
    assert not (tmp_path / "j.jsonl").exists()
    assert len(journal) == 0


def test_a_digest_depends_on_content_and_not_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})
