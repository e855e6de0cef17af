"""`crrl doctor` tries everything, tells the mend, and says no only where the demo would fail."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from code_repair_rl import doctor
from code_repair_rl.cli import app
from code_repair_rl.doctor import Check, Status, torch_findings, works


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_everything_is_tried_on_this_machine_and_reported_as_json(cache: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "code_repair_rl", "doctor", "--json"], capture_output=True, text=True, timeout=200
    )
    report = json.loads(finished.stdout)
    found = {check["name"]: check for check in report["checks"]}
    expected = {"Python", "libraries", "torch", "GPU", "memory", "cache folder", "embedded model", "DeepSpeed", "vLLM"}
    assert expected | {"isolation: bubblewrap", "W&B", "trackio"} <= set(found)
    assert found["torch"]["status"] in ("ok", "warn")
    assert "a small job took" in found["isolation: bubblewrap"]["found"]
    assert found["embedded model"]["status"] == "warn"  # the cache is empty, and the demo would fetch it
    assert "crrl model fetch" in found["embedded model"]["mend"]
    assert finished.returncode == (0 if report["works"] else 1)
    assert report["works"] == all(c["status"] != "missing" for c in report["checks"] if c["needed"])


def test_what_is_needed_and_missing_is_a_no_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [
        Check("Python", Status.OK, "3.11", needed=True),
        Check("isolation: bubblewrap", Status.MISSING, "no [namespaces]", "allow them", needed=True),
        Check("vLLM", Status.MISSING, "not installed"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: broken)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "no [namespaces]" in result.stdout
    assert "mend: allow them" in result.stdout
    assert "cannot run here yet: isolation: bubblewrap" in result.stdout


def test_optional_things_and_warnings_are_not_a_no() -> None:
    assert works([Check("vLLM", Status.MISSING, ""), Check("memory", Status.WARN, "", needed=True)])
    assert not works([Check("memory", Status.MISSING, "", needed=True)])


def test_a_damaged_embedded_model_is_found_and_named(cache: Path) -> None:
    folder = cache / "models" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    (check,) = doctor._embedded_model()
    assert check.status is Status.MISSING
    assert check.mend == f"remove {folder} and run `crrl model fetch`"


def test_a_cache_folder_that_cannot_be_made_is_one_finding_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(doctor, "_GROUPS", (doctor._cache_folder, doctor._memory))
    checks = doctor.examine()
    assert checks[0].status is Status.MISSING
    assert "CRRL_HOME" in str(checks[0].mend)
    assert checks[1].name == "memory"


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken_check() -> list[Check]:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(doctor, "_GROUPS", (_broken_check,))
    assert doctor.examine() == [
        Check(
            "broken check",
            Status.MISSING,
            "the check itself failed: ZeroDivisionError: oh",
            "install again: `make clean demo`",
            needed=True,
        )
    ]


class TestTorchFindings:
    CPU: ClassVar[dict[str, Any]] = {
        "version": "2.13.0+cpu",
        "threads": 2,
        "cuda": None,
        "gpus": [],
        "bf16_speed": 1.9,
    }

    def test_a_cpu_build_without_a_gpu_is_well(self) -> None:
        torch, _, gpu = torch_findings(self.CPU, cores=2, nvidia=None)
        assert (torch.status, gpu.status) == (Status.OK, Status.MISSING)
        assert works([torch, gpu])

    def test_more_threads_than_cores_is_a_warning_with_the_number(self) -> None:
        torch, *_ = torch_findings(self.CPU | {"threads": 8}, cores=2, nvidia=None)
        assert torch.status is Status.WARN
        assert "OMP_NUM_THREADS" in str(torch.mend)
        assert "2" in str(torch.mend)

    def test_it_is_told_which_precision_the_machine_chooses(self) -> None:
        _, fast, _ = torch_findings(self.CPU, cores=2, nvidia=None)
        _, slow, _ = torch_findings(self.CPU | {"bf16_speed": 0.5}, cores=2, nvidia=None)
        assert (fast.status, slow.status) == (Status.OK, Status.OK)
        assert fast.found.endswith("takes bf16")
        assert slow.found.endswith("takes fp32")

    def test_a_gpu_beside_a_cpu_build_is_told_how_to_use_it(self) -> None:
        _, gpu = torch_findings(self.CPU, cores=2, nvidia="GPU 0: NVIDIA H100")
        assert gpu.status is Status.WARN
        assert gpu.mend == "`make TORCH=gpu demo`"

    def test_a_gpu_that_torch_cannot_use_points_at_the_driver(self) -> None:
        _, gpu = torch_findings(self.CPU | {"cuda": "13.0"}, cores=2, nvidia="GPU 0: NVIDIA H100")
        assert gpu.status is Status.WARN
        assert "driver" in str(gpu.mend)

    def test_usable_gpus_are_listed_with_their_memory(self) -> None:
        probe = self.CPU | {"cuda": "13.0", "gpus": [{"name": "NVIDIA H100", "memory_bytes": 80 * 2**30}]}
        _, gpu = torch_findings(probe, cores=2, nvidia="GPU 0: NVIDIA H100")
        assert gpu == Check("GPU", Status.OK, "NVIDIA H100 (80 GiB), CUDA 13.0")


def test_an_empty_cpu_only_machine_with_little_memory_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Memory:
        total = 8 * 2**30
        available = 4 * 2**30

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    (check,) = doctor._memory()
    assert check.status is Status.WARN
    Memory.available = 2 * 2**30
    (check,) = doctor._memory()
    assert check.status is Status.MISSING
