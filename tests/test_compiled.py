"""The cache of compiled kernels: renewed when a source has changed, and no trap where a file of it is damaged."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import simulator.compiled
from models import kernel_cache

KERNELS = {
    "inner_kernel.py": "from simulator.compiled import njit\n\n@njit(cache=True)\ndef inner(x):\n    return x + 1\n",
    "outer_kernel.py": "from simulator.compiled import njit\nfrom simulator.inner_kernel import inner\n\n"
    "@njit(cache=True)\ndef outer(x):\n    return inner(x)\n",
}
CALL = "from simulator.outer_kernel import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"


def run(code, folder, **environment):
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def call(tmp_path):
    """A function that calls a kernel of a copy of the simulator in a process of its own."""
    for module in (simulator.compiled, kernel_cache):
        folder = tmp_path / Path(module.__file__).parent.name
        folder.mkdir()
        (folder / "__init__.py").touch()
        shutil.copy(Path(module.__file__), folder)
    for name, text in KERNELS.items():
        (tmp_path / "simulator" / name).write_text(text)
    return lambda: run(CALL, tmp_path)


@pytest.mark.slow
def test_a_kernel_is_compiled_anew_when_one_that_it_calls_has_changed(tmp_path, call):
    assert [call(), call()] == [["2", "0"], ["2", "1"]]  # result, kernels taken from the cache
    (tmp_path / "simulator" / "inner_kernel.py").write_text(KERNELS["inner_kernel.py"].replace("+ 1", "+ 5"))
    assert [call(), call()] == [["6", "0"], ["6", "1"]]
    for kind in ("nbi", "nbc"):
        for file in tmp_path.rglob(f"*.{kind}"):
            cut(file)
        assert call() == ["6", "0"]
    assert call() == ["6", "1"]


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = {
    "half": cut,
    "nothing": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),  # as a file system leaves it that went down
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_damaged_cache_is_an_empty_one(tmp_path, kind, damage):
    cache = kernel_cache.caching.IndexDataCacheFile(str(tmp_path), "kernel", "stamp")
    cache.save("key", ["code"] * 1000)
    assert cache.load("key") == ["code"] * 1000
    (file,) = tmp_path.glob(f"*.{kind}")
    DAMAGES[damage](file)
    assert cache.load("key") is None
    cache.save("key", ["code"])
    assert cache.load("key") == ["code"]


MOVE = """
import numpy as np
from models.kernels import _move
part, total = np.ones((2, 3)), np.ones((2, 3))
_move(part, total)
print(total.sum(), sum(_move.stats.cache_hits.values()))
"""
FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing more than these bytes raises OSError
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""


@pytest.mark.slow
def test_cache_of_the_recurrent_nets_kernels_that_is_cut_off_or_on_a_full_disk_is_no_trap(tmp_path):
    def call(before=""):
        return run(before + MOVE, Path(__file__).parent.parent, NUMBA_CACHE_DIR=str(tmp_path))

    assert call(FULL) == ["12.0", "0"] and not list(tmp_path.rglob("*.nb?"))
    assert call() == ["12.0", "0"]
    for kind in ("nbi", "nbc"):
        (file,) = tmp_path.rglob(f"*_move*.{kind}")
        cut(file)
        assert call() == ["12.0", "0"]
    assert call() == ["12.0", "1"]
