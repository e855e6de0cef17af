"""Backends that run each job in a container: docker, podman, apptainer.

The engine's image brings the interpreter (`python3`); nothing is ever pulled. A container hands in no descriptors but
the three standard ones, so the launcher talks over those and keeps what the command writes in files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.sandbox.command_line import base_environment
from code_repair_rl.sandbox.job import JOB_FOLDER, Job
from code_repair_rl.sandbox.one_shot import OneShot, Place

IMAGE_VARIABLE = "CRRL_SANDBOX_IMAGE"
"""Names the image: for docker and podman one that is there already, for apptainer a `.sif` file."""
_DEFAULT_IMAGE = "python:3.11-slim"
_NOBODY = 65534
_START_SECONDS = 30.0
_INTERPRETER = "python3"
_PATH = "/usr/local/bin:/usr/bin:/bin"
_LAUNCHER_BYTES = 256 << 20
"""Memory beyond the job's own, for the launcher with the files it carries."""


def docker_command(engine: str, name: str, image: str, job: Job) -> list[str]:
    """The command line of docker or podman that a job's program is appended to."""
    limits = job.limits
    memory = str(limits.memory_bytes + _LAUNCHER_BYTES)
    line = [engine, "run", "--rm", "--interactive", "--pull=never", "--name", name, "--network=none", "--read-only"]
    line += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--user", f"{_NOBODY}:{_NOBODY}", "--ipc=private"]
    line += ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.processes + 8)]
    for folder in (JOB_FOLDER, "/tmp"):
        line += ["--tmpfs", f"{folder}:rw,exec,nosuid,nodev,mode=1777,size={limits.disk_bytes}"]
    for inside, outside in _mounts(job).items():
        line += ["--mount", f"type=bind,source={outside},target={inside},readonly"]
    return [*line, "--workdir", JOB_FOLDER, "--entrypoint", "", image]


def apptainer_command(engine: str, image: str, job: Job) -> list[str]:
    """The command line of apptainer. Sizes of its /tmp and total memory are the launcher's and the watcher's to limit:
    without root apptainer has no options that hold for them."""
    line = [engine, "exec", "--containall", "--cleanenv", "--no-home", "--no-privs", "--no-mount", "bind-paths"]
    line += ["--net", "--network", "none", "--pwd", "/tmp"]
    for inside, outside in _mounts(job).items():
        line += ["--bind", f"{outside}:{inside}:ro"]
    return [*line, image]


def _mounts(job: Job) -> dict[str, str]:
    mounts = {**{path: path for path in job.python_path}, **job.read_only}
    for text in (*mounts, *mounts.values()):
        if "," in text or ":" in text:
            raise BadInput("a container engine cannot mount a path with a comma or a colon", where=text)
    return mounts


class Container(OneShot):
    """One container per job.

    Args:
        engine: `docker`, `podman` or `apptainer`.
        image: what to run; by the environment variable, or the default, where None.
    """

    grace_seconds = _START_SECONDS

    def __init__(self, engine: str, image: str | None = None) -> None:
        self._image = image
        self.name = engine
        self.isolation = engine

    @contextmanager
    def _place(self, job: Job) -> Iterator[Place]:
        engine = shutil.which(self.name)
        if engine is None:
            raise MachineryFailed(f"{self.name} is not installed", where="sandbox", mend=self._mend())
        name = f"crrl-{uuid.uuid4().hex}"
        image = self._image or os.environ.get(IMAGE_VARIABLE, _DEFAULT_IMAGE)
        if self.name == "apptainer":
            yield _in_container(apptainer_command(engine, image, job), "/tmp/job")
            return
        try:
            yield _in_container(docker_command(engine, name, image, job), JOB_FOLDER)
        finally:
            # The client's end is not the container's: what a limit ended is still there.
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([engine, "rm", "--force", name], capture_output=True, timeout=_START_SECONDS)

    def _mend(self) -> str:
        return f"install {self.name}, fetch an image with python3 for it, and name that in {IMAGE_VARIABLE}"


def _in_container(command: list[str], folder: str) -> Place:
    environment = {**base_environment(), "PATH": _PATH}
    return Place(
        command,
        folder,
        pipes=False,
        interpreter=_INTERPRETER,
        environment=environment,
        client_environment=_outer_environment(),
    )


def _outer_environment() -> dict[str, str]:
    """What the engine's own client needs; the container gets nothing of it."""
    kept = ("PATH", "HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST")
    return {name: os.environ[name] for name in kept if name in os.environ}
