"""One hypothesis profile for all tests: no deadline (the first call of a numba kernel compiles it), reproducible."""

from hypothesis import settings

settings.register_profile("jali", deadline=None, derandomize=True)
settings.load_profile("jali")
