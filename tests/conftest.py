"""One hypothesis profile for all tests: no deadline (the first call of a numba kernel compiles it), reproducible."""

import os

from hypothesis import settings

# Before torch is imported: two test processes share the cores, and threads of torch would fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("jali", deadline=None, derandomize=True)
settings.load_profile("jali")
