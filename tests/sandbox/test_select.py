from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.sandbox import Job, backends, one_shot, probe_all, select, select_backend


def test_auto_never_chooses_what_isolates_nothing() -> None:
    assert select_backend("auto").name == "bubblewrap"


def test_the_unsafe_backend_is_stamped() -> None:
    result = select_backend("unsafe_local").run(Job(argv=("python", "-c", "print(open('x').read())"), files={"x": "1"}))
    assert result.ok and result.isolation == "unsafe-local" and result.stdout == b"1\n"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="bubblewrap"):
        select_backend("chroot")


def test_where_nothing_works_the_error_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("code_repair_rl.sandbox.command_line.bubblewrap_binary", lambda: str(broken))
    monkeypatch.setattr(select, "_known", {})
    with pytest.raises(MachineryFailed, match="No permissions") as caught:
        select_backend()
    assert "user namespaces" in (caught.value.mend or "")
    assert caught.value.exit_code == 3


def test_every_backend_is_really_probed() -> None:
    probes = probe_all()
    assert [probe.name for probe in probes] == list(backends())
    for probe in probes:
        if probe.name in ("bubblewrap", "unsafe_local"):
            assert probe.works and probe.wall_seconds > 0, probe
        elif shutil.which(probe.name) is None:
            assert not probe.works and "not installed" in probe.detail and "CRRL_SANDBOX_IMAGE" in probe.mend


def test_an_ordinary_user_gets_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    from code_repair_rl.sandbox.command_line import JailLayout, jail_command

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    line = jail_command(JailLayout(folder_bytes=4096), seccomp_fd=9, slot=1)
    for option in ("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-net", "--clearenv"):
        assert option in line
    assert line[line.index("--seccomp") + 1] == "9" and line[-1] == "--"
    assert "CAP_SETUID" not in line
    assert one_shot.Bubblewrap().isolation == "bubblewrap"
