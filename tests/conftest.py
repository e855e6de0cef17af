"""What holds for every test: no model hub is asked for anything, terminals are plain and wide, examples are the same.

Property tests try the same examples in every run, so that a verdict on a commit can be repeated. New ones are looked
for with `pytest --hypothesis-profile=explore`.
"""

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["COLUMNS"] = "200"
os.environ["NO_COLOR"] = "1"
os.environ.pop("FORCE_COLOR", None)

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile("repeatable")
