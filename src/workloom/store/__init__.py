"""The directory of a run: `RunWriter` while it goes, `open_run` whatever became of it.

records -> journal (synced every half second) -> tables, in order of the plan
"""

from workloom.store.manifest import Manifest
from workloom.store.run import Run, open_run
from workloom.store.writer import RunWriter, refuse_used

__all__ = ["Manifest", "Run", "RunWriter", "open_run", "refuse_used"]
