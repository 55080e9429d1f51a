"""numba's njit with a cache in which a file that is cut off or cannot be written costs a compilation, not every trial.

numba's own raises what reading such a file raises, in this process and in all to come.
"""

from __future__ import annotations

import contextlib

from numba import njit
from numba.core import caching

__all__ = ["njit"]


class Lenient(caching.IndexDataCacheFile):
    """Takes what cannot be read for missing: it is compiled and written anew."""

    def load(self, key):
        """Return a compiled kernel, or None."""
        with contextlib.suppress(Exception):  # whatever unpickling half a file raises
            return super().load(key)
        return None

    def _load_index(self):
        with contextlib.suppress(Exception):
            return super()._load_index()
        return {}

    def save(self, key, data):
        """Write a compiled kernel, where the disk takes it."""
        with contextlib.suppress(OSError):
            super().save(key, data)


caching.IndexDataCacheFile = Lenient  # which caching.Cache looks up when a kernel is declared
