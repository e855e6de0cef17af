"""Pinned packages: verified on every use, one clear error where nothing can be reached."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.packages import cached_package, fetch_package, sha256_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip looks into this folder and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel_in(folder: Path, name: str = "tiny_thing", version: str = "1.0") -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "x = 1\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_a_wheel_is_fetched_once_and_then_served_from_the_cache(cache: Path, index: Path) -> None:
    wheel = wheel_in(index)
    digest = sha256_of(wheel)
    first = fetch_package("tiny-thing", "1.0", digest)
    wheel.unlink()
    assert fetch_package("tiny-thing", "1.0", digest) == first
    assert hashlib.sha256(first.read_bytes()).hexdigest() == digest
    assert cache in first.parents


def test_other_bytes_than_the_pinned_ones_are_refused(cache: Path, index: Path) -> None:
    wheel_in(index)
    with pytest.raises(BadInput, match="other bytes than the pinned ones"):
        fetch_package("tiny-thing", "1.0", "0" * 64)
    assert cached_package("tiny-thing", "1.0", "0" * 64) is None


def test_a_damaged_file_in_the_cache_is_fetched_again(cache: Path, index: Path) -> None:
    digest = sha256_of(wheel_in(index))
    fetch_package("tiny-thing", "1.0", digest).write_bytes(b"damaged")
    assert cached_package("tiny-thing", "1.0", digest) is None
    assert sha256_of(fetch_package("tiny-thing", "1.0", digest)) == digest


def test_an_index_that_does_not_have_it_gives_one_error_with_the_mend(cache: Path, index: Path) -> None:
    with pytest.raises(MachineryFailed, match=r"could not fetch absent-thing==3\.1[\s\S]*mend: .*elsewhere into"):
        fetch_package("absent-thing", "3.1", "0" * 64)
    assert not [path for path in (cache / "packages").rglob("*") if path.is_file()]
