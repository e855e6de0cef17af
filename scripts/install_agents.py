"""Install mini-swe-agent and nano-agent into an environment of their own. Fast when it is there.

Their dependencies pin versions that differ from ours. The place is below the cache folder, or what `CRRL_AGENTS` names.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from code_repair_rl.home import home, locked, write_atomically
from code_repair_rl.rollouts.agent_programs import ENVIRONMENT_VARIABLE

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints-agents.txt"
AGENTS = ("mini-swe-agent", "nano-agent")


def main() -> None:
    """Make the environment where it is absent or has other versions."""
    folder = Path(os.environ.get(ENVIRONMENT_VARIABLE) or home() / "agents")
    stamp = folder / "installed.txt"
    wanted = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest() + sys.version
    with locked("agents"):
        if not stamp.is_file() or stamp.read_text() != wanted:
            print(f"installing {' and '.join(AGENTS)} into {folder}: a minute or two, 600 MB", flush=True)
            venv.create(folder, with_pip=True)
            line = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            subprocess.run([*line, "--constraint", str(CONSTRAINTS), *AGENTS], check=True)
            write_atomically(stamp, wanted)
    print(f"agents: {folder}")


if __name__ == "__main__":
    main()
