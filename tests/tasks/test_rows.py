"""Rows come from files, folders and the hub's library alike, each with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.tasks.rows import data_set_rows, is_data_set

ROWS = [{"a": 1, "b": ["x"]}, {"a": 2, "b": []}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "2.parquet")
    return folder


def test_files_of_a_folder_are_read_in_their_order(folder: Path) -> None:
    found = list(data_set_rows(str(folder)))
    assert [row for _, row in found] == ROWS * 2
    assert [where.rpartition("/")[2] for where, _ in found] == ["1.jsonl:1", "1.jsonl:2", "2.parquet:1", "2.parquet:2"]
    assert list(data_set_rows(str(folder / "1.jsonl"))) == found[:2]
    assert is_data_set(str(folder)) and is_data_set("hub:a/b") and not is_data_set(str(folder.parent / "absent"))


def test_the_hubs_library_reads_what_is_named_as_a_data_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (folder / "2.parquet").unlink()
    found = list(data_set_rows(f"hub:{folder}"))
    assert [row for _, row in found] == ROWS
    assert found[1][0] == f"hub:{folder}/train:2"


def test_a_hub_that_cannot_be_reached_is_our_failure_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*arguments: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        MachineryFailed, match=r"hub:a/b \(split train\): .*Couldn't reach the Hub\n  mend: check the name"
    ):
        list(data_set_rows("hub:a/b"))


def test_what_is_no_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no .jsonl or .parquet files"):
        list(data_set_rows(str(tmp_path)))
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n[1]\n')
    with pytest.raises(BadInput, match=r"x.jsonl:2: a row is a JSON object"):
        list(data_set_rows(str(tmp_path / "x.jsonl")))
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadInput, match=r"x.parquet: cannot be read"):
        list(data_set_rows(str(tmp_path / "x.parquet")))
