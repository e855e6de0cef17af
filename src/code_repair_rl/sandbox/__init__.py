"""Where untrusted code runs.

from code_repair_rl.sandbox import Job, select_backend

result = select_backend().run(Job(argv=("python", "main.py"), files={"main.py": "print(6 * 7)"}))
"""

from code_repair_rl.sandbox.job import JOB_FOLDER, Cause, Job, JobResult, Probe, Sandbox
from code_repair_rl.sandbox.limits import AGENT_COMMAND, FUNCTION, GIB, MIB, PYTEST, Limits
from code_repair_rl.sandbox.select import backends, probe_all, select_backend
from code_repair_rl.sandbox.session import Session

__all__ = [
    "AGENT_COMMAND",
    "FUNCTION",
    "GIB",
    "JOB_FOLDER",
    "MIB",
    "PYTEST",
    "Cause",
    "Job",
    "JobResult",
    "Limits",
    "Probe",
    "Sandbox",
    "Session",
    "backends",
    "probe_all",
    "select_backend",
]
