"""The cache of compiled kernels."""

import shutil
import subprocess
import sys
from pathlib import Path

import simulator.compiled

KERNELS = {
    "inner_kernel.py": "from simulator.compiled import njit\n\n@njit(cache=True)\ndef inner(x):\n    return x + 1\n",
    "outer_kernel.py": "from simulator.compiled import njit\nfrom simulator.inner_kernel import inner\n\n"
    "@njit(cache=True)\ndef outer(x):\n    return inner(x)\n",
}
CALL = "from simulator.outer_kernel import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"


def test_a_kernel_is_compiled_anew_when_one_that_it_calls_has_changed(tmp_path):
    (tmp_path / "simulator").mkdir()
    (tmp_path / "simulator" / "__init__.py").touch()
    shutil.copy(Path(simulator.compiled.__file__), tmp_path / "simulator")
    for name, text in KERNELS.items():
        (tmp_path / "simulator" / name).write_text(text)

    def call():
        ran = subprocess.run([sys.executable, "-c", CALL], cwd=tmp_path, capture_output=True, text=True, check=True)
        return ran.stdout.split()

    assert [call(), call()] == [["2", "0"], ["2", "1"]]  # result, kernels taken from the cache
    (tmp_path / "simulator" / "inner_kernel.py").write_text(KERNELS["inner_kernel.py"].replace("+ 1", "+ 5"))
    assert [call(), call()] == [["6", "0"], ["6", "1"]]
