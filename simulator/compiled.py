"""numba's njit, with a cache that is renewed when any source of the simulator changes.

numba looks at a kernel's own file only: one that calls kernels or has constants of another file would go on with the
old ones.
"""

import os
from hashlib import sha256
from pathlib import Path

from numba import config

from models.kernel_cache import njit

__all__ = ["njit"]

_FOLDER = Path(__file__).parent
_SOURCES = b"".join(path.read_bytes() for path in sorted(_FOLDER.glob("[!.]*.py")))
_BASE = _FOLDER / "__pycache__" if os.access(_FOLDER, os.W_OK) else Path.home() / ".cache" / "numba" / "streamnet"
config.CACHE_DIR = str(Path(config.CACHE_DIR or _BASE) / sha256(_SOURCES).hexdigest()[:16])
