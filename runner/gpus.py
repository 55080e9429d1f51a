"""Which GPUs trials get: those that nvidia-smi lists, as far as CUDA_VISIBLE_DEVICES shows them.

    visible_gpus("3,GPU-5a9d")    # ["3", "GPU-5a9d0f..."]: for each a word that CUDA_VISIBLE_DEVICES takes
    gpu_environment("3")          # what a trial on it gets

Indices are nvidia-smi's, which CUDA shares with CUDA_DEVICE_ORDER=PCI_BUS_ID only; its own order is by speed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from runner.flags import UserMistake

ASK_SECONDS = 120  # for nvidia-smi, which takes half a minute on a busy machine
END_OF_MASK = ("-1", "NoDevFiles")  # what follows is hidden


def gpu_environment(gpu: str) -> dict[str, str]:
    """Return what a trial's environment has to say so that it sees `gpu` alone."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu}


def choose_gpus(number: int) -> list[str]:
    """Return the first `number` of the GPUs that are visible here. Raises UserMistake where there are fewer."""
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = visible_gpus(mask)
    if number > len(found):
        shown = "nvidia-smi" if mask is None else f"CUDA_VISIBLE_DEVICES={mask}"
        raise UserMistake(f"--gpus {number}: {shown} shows {len(found)} here")
    return found[:number]


def visible_gpus(mask: str | None) -> list[str]:
    """Return the GPUs that `mask` shows, in its order; None shows all, and of a GPU in MIG mode its parts.

    Raises UserMistake for a word of the mask that names no GPU, or not just one, and for a GPU that is named twice.
    """
    gpus = list_gpus()
    if mask is None:
        return [word for index, (_, parts) in enumerate(gpus) for word in (parts or [str(index)])]
    found = {}
    for word in mask.split(",") if mask.strip() else ():
        if word.strip() in END_OF_MASK:
            break
        try:
            name, given = _named(word.strip(), gpus)
        except ValueError as mistake:
            raise UserMistake(f"CUDA_VISIBLE_DEVICES={mask}: {mistake}") from None
        if name in found:
            raise UserMistake(f"CUDA_VISIBLE_DEVICES={mask}: {word.strip()} is named twice; CUDA would show no GPU")
        found[name] = given
    return list(found.values())


def _named(word: str, gpus: list[tuple[str, list[str]]]) -> tuple[str, str]:
    """Return the UUID of the GPU that a word names, and the word to name it by. Raises ValueError."""
    if re.fullmatch(r"[0-9]{1,9}", word):
        if int(word) >= len(gpus):
            raise ValueError(f"there is no GPU {word}: nvidia-smi lists {len(gpus)}, numbered from 0")
        return gpus[int(word)][0], word
    if not word.startswith(("GPU-", "MIG-")):
        raise ValueError(f"{word!r} must be an index, GPU-<UUID> or MIG-<UUID>")
    names = [name for uuid, parts in gpus for name in (uuid, *parts) if name.startswith(word)]
    if word in names:
        return word, word
    if len(names) != 1:
        raise ValueError(f"{word} names {len(names) or 'none'} of the GPUs that nvidia-smi -L lists")
    return names[0], names[0]


def list_gpus() -> list[tuple[str, list[str]]]:
    """Return the UUID of each GPU that nvidia-smi lists, with those of its MIG parts; none without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        asked = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": ASK_SECONDS}
        listed = subprocess.run(["nvidia-smi", "-L"], **asked).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserMistake(f"nvidia-smi -L, which lists the GPUs, gave no answer ({type(error).__name__})") from None
    gpus = []
    for line in listed.splitlines():
        uuid = re.search(r"\(UUID: ([^()]+)\)", line)
        if line.startswith("GPU "):
            gpus.append((uuid[1] if uuid else f"GPU {len(gpus)}", []))
        elif line.lstrip().startswith("MIG ") and uuid and gpus:
            gpus[-1][1].append(uuid[1])
    return gpus
