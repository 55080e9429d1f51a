"""run() and run_batch(): a net over many samples, with compiled kernels where the graph is known, else by step().

    record = run(net, Images(images, labels, steps=8, seed=0), learn=True, precision="float32")
    record.counts                       # (B, K) output spikes per sample
    record.backend, record.reason       # "shallow", "mushroom_body", "graph" or "step", and why no faster one

`step()` is the definition; in float64 every backend gives the same spikes, and weights to 1e-12. (Their sums are taken
in another order: a potential that equals its threshold to the last digit may be rounded to its other side.)
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from simulator.encoders import encode_images
from simulator.neurons import Layer
from simulator.streamnet import StreamNet, whole

CHUNK = 64  # samples whose spike trains are held at a time
BACKENDS = ("auto", "step", "graph", "fast")


class Images(NamedTuple):
    """Images shown as Poisson spikes at the net's first input; its second gets 1 at the label's channel, else 0."""

    images: np.ndarray  # uint8 (B, N)
    labels: np.ndarray | None  # int64 (B,), or None: the second input stays 0
    steps: int = 8  # per sample
    seed: int = 0  # of the spikes; see encoders.py
    scale: float = 1.0  # spikes per step of a pixel of 255
    reset: bool = True  # return to rest before each sample
    first: int = 0  # number of the first sample in the stream of random spikes, to show a stream in parts


class Trains(NamedTuple):
    """Given vectors for every input of the net."""

    inputs: tuple[np.ndarray, ...]  # one (B, T, size) per input
    reset: bool = True  # return to rest before each sample


class Record(NamedTuple):
    """What a run showed."""

    counts: np.ndarray  # int64 (B, K): spikes of the first output port per sample
    spikes: int  # of all layers together
    operations: int  # synaptic operations of all layers
    backend: str  # step | graph | shallow | mushroom_body
    reason: str = ""  # why not a faster backend
    outputs: tuple[np.ndarray, ...] | None = None  # Trains: (B, T, size) per output port
    kenyon: np.ndarray | None = None  # mushroom_body, where asked for: uint8 (B, cells), spikes of each Kenyon cell


def run(
    net: StreamNet,
    samples: Images | Trains,
    learn: bool = True,
    precision: str = "float64",
    backend: str = "auto",
    kenyon: bool = False,
) -> Record:
    """Show `samples` to the net, which keeps its state afterwards, as with step().

    backend: "auto" takes the fastest that knows the graph; "fast" (a kernel for one of the two networks), "graph" and
    "step" insist. Only the fast ones know precision "float32"; `kenyon` asks that of mushroom_body for the spikes of
    each Kenyon cell. Raises ValueError for samples that do not fit the net, and where the graph has no such backend,
    with the reason.
    """
    samples = _checked(net, samples, precision, backend)
    reason = _why_not_fast(net, samples, backend, kenyon)
    if not reason:
        from simulator.fast import run_fast

        return run_fast([net], samples, learn, precision, kenyon)[0]
    if backend == "fast" or precision == "float32" or kenyon:
        asked = "Kenyon cells' spikes" if kenyon else f"fast {precision} kernel"
        raise ValueError(f"no {asked} for this net: {reason}")
    if backend != "step":
        unknown = why_not_graph(net)
        if not unknown:
            from simulator.lowering import lower

            return _run_chunks(net, samples, learn, partial(_graph_chunk, lower(net)), "graph", reason)
        if backend == "graph":
            raise ValueError(f"no compiled kernel for this net: {unknown}")
        reason = unknown
    return _run_chunks(net, samples, learn, _step_chunk, "step", reason)


def run_batch(nets: list[StreamNet], samples: Images, learn: bool = True, precision: str = "float32") -> list[Record]:
    """Show the same images to many nets of one architecture, in one call of its kernel. Raises ValueError as run()."""
    from simulator.fast import run_fast, same_architecture

    for number, net in enumerate(nets):
        samples = _checked(net, samples, precision, "fast")
        reason = _why_not_fast(net, samples, "fast") or same_architecture(nets[0], net)
        if any(net is other for other in nets[:number]):
            reason = "it is in the batch already"
        if reason:
            raise ValueError(f"net {number} cannot run in this batch: {reason}")
    return run_fast(nets, samples, learn, precision) if nets else []


def why_not_graph(net: StreamNet) -> str:
    """Return why the graph kernel cannot run a net, or an empty text where it can."""
    from simulator.lowering import NotLowerable, lower

    if has_monitors(net):
        return "its monitors record every step"
    try:
        lower(net)
    except NotLowerable as error:
        return str(error)
    return ""


def has_monitors(net: StreamNet) -> bool:
    """Tell whether the net or one inside it is monitored."""
    return bool(net.monitors) or any(has_monitors(e) for e in net.elements.values() if isinstance(e, StreamNet))


def layers(net: StreamNet) -> list[Layer]:
    """Return all layers, at any depth."""
    found = []
    for element in net.elements.values():
        found += layers(element) if isinstance(element, StreamNet) else [element] if isinstance(element, Layer) else []
    return found


def _why_not_fast(net: StreamNet, samples: Images | Trains, backend: str, kenyon: bool = False) -> str:
    if backend not in ("auto", "fast"):
        return f"the backend {backend!r} was asked for"
    if isinstance(samples, Trains):
        return "given spike trains are not images"
    from simulator.fast import architecture, why_not_fast

    if kenyon and architecture(net) == "shallow":
        return "it has no Kenyon cells"
    return why_not_fast(net)


def _checked(net: StreamNet, samples: Images | Trains, precision: str, backend: str) -> Images | Trains:
    """Return the samples as arrays. Raises ValueError for what does not fit the net."""
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision must be float32 or float64, not {precision!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    if not isinstance(samples, Images | Trains):
        raise ValueError(f"samples must be Images or Trains, not {type(samples).__name__}")
    net.check_connected()
    if not net.exposed:
        raise ValueError("the net exposes no output")
    if not net.inputs:
        raise ValueError("samples are shown to a net's inputs, and this one has none: use step()")
    return _checked_trains(net, samples) if isinstance(samples, Trains) else _checked_images(net, samples)


def _checked_trains(net: StreamNet, samples: Trains) -> Trains:
    arrays = tuple(np.asarray(array) for array in samples.inputs)
    shapes = [array.shape for array in arrays]
    fits = [len(shape) == 3 and shape[:2] == shapes[0][:2] and shape[1] > 0 for shape in shapes]
    if not all(fits) or [shape[2] for shape in shapes] != list(net.input_sizes):
        raise ValueError(
            f"trains must be (samples, steps, size) for the inputs' sizes {net.input_sizes}; they have shapes {shapes}"
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("trains must be finite numbers")
    return samples._replace(inputs=arrays)


def _checked_images(net: StreamNet, samples: Images) -> Images:
    images, labels = np.asarray(samples.images), samples.labels
    if images.ndim != 2 or images.dtype != np.uint8 or images.shape[1] != net.input_sizes[0]:
        raise ValueError(f"images must be uint8 (B, {net.input_sizes[0]}), not {images.dtype} {images.shape}")
    if len(net.inputs) > 2:
        raise ValueError(f"images go to nets with one or two inputs, not {len(net.inputs)}")
    if labels is not None:
        labels = np.asarray(labels)
        fits = labels.shape == (len(images),) and labels.dtype.kind in "iu"
        if not fits or (len(net.inputs) == 2 and not ((labels >= 0) & (labels < net.input_sizes[1])).all()):
            classes = f" from 0 to {net.input_sizes[1] - 1}" if len(net.inputs) == 2 else ""
            raise ValueError(f"labels must be {len(images)} whole numbers{classes}, not {_shown(labels)}")
    if not 0 <= samples.scale < np.inf:
        raise ValueError(f"scale must be at least 0 and finite, not {samples.scale}")
    numbers = {"steps": whole("steps", samples.steps), "first": whole("first", samples.first, 0)}
    numbers["seed"] = whole("seed", samples.seed, 0) % 2**64  # as in encoders.step_key
    return samples._replace(images=images, labels=labels, **numbers)


def _shown(labels: np.ndarray) -> str:
    if labels.size and labels.dtype.kind in "iu":
        return f"{labels.shape} from {labels.min()} to {labels.max()}"
    return f"{labels.dtype} {labels.shape}"


def _run_chunks(net: StreamNet, samples: Images | Trains, learn: bool, run_chunk, backend: str, reason: str) -> Record:
    """Run in chunks of samples, so that few spike trains are in memory at a time."""
    before = sum(layer.counters for layer in layers(net)) + np.zeros(2, dtype=np.int64)
    total = len(samples.images if isinstance(samples, Images) else samples.inputs[0])
    counts = np.zeros((total, net.output_sizes[0]), dtype=np.int64)
    kept = []
    for first in range(0, total, CHUNK):
        trains = _trains(net, samples, first, backend)
        outputs = run_chunk(net, trains, samples.reset, learn)
        counts[first : first + CHUNK] = outputs[0].sum(axis=1)
        if isinstance(samples, Trains):
            kept.append(outputs)
    spikes, operations = (int(n) for n in sum(layer.counters for layer in layers(net)) - before)
    joined = tuple(np.concatenate(parts) for parts in zip(*kept, strict=True)) if kept else None
    return Record(counts, spikes, operations, backend, reason, joined)


def _trains(net: StreamNet, samples: Images | Trains, first: int, backend: str) -> tuple[np.ndarray, ...]:
    """Return the input vectors of the samples from `first` on, (chunk, T, size) each."""
    part = slice(first, first + CHUNK)
    if isinstance(samples, Trains):
        return tuple(array[part] for array in samples.inputs)
    encode = encode_images
    if backend == "graph":
        from simulator.poisson_kernel import encode_all as encode
    x = encode(samples.images[part], samples.steps, samples.seed, samples.scale, samples.first + first)
    if len(net.inputs) == 1:
        return (x,)
    m = np.zeros((*x.shape[:2], net.input_sizes[1]))
    if samples.labels is not None:
        m[np.arange(len(x)), :, samples.labels[part]] = 1
    return x, m


def _step_chunk(net: StreamNet, trains: tuple[np.ndarray, ...], reset: bool, learn: bool) -> tuple[np.ndarray, ...]:
    samples, steps = trains[0].shape[:2]
    outputs = tuple(np.zeros((samples, steps, size)) for size in net.output_sizes)
    for b in range(samples):
        if reset:
            net.reset()
        for t in range(steps):
            for port, values in enumerate(net.step(*(train[b, t] for train in trains), learn=learn)):
                outputs[port][b, t] = values
    return outputs


def _graph_chunk(program, net: StreamNet, trains: tuple[np.ndarray, ...], reset: bool, learn: bool):
    from simulator.graph_kernel import run_graph

    samples, steps = trains[0].shape[:2]
    given = np.concatenate([train.reshape(samples * steps, -1) for train in trains], axis=1, dtype=float)
    if program.front:
        given = np.concatenate([given, _step_front(program, given, steps, reset, learn)], axis=1)
    out = np.zeros((samples * steps, len(program.shown)))
    tables = (program.layers, program.synapses, program.pool, program.rest, program.signals, program.whole)
    run_graph(given, steps, reset, learn, *tables, program.counters, program.shown, out)
    program.write_back()
    net.after_run(samples * steps)
    ends = np.cumsum(net.output_sizes)[:-1]
    return tuple(np.split(out.reshape(samples, steps, -1), ends, axis=2))


def _step_front(program, given: np.ndarray, steps: int, reset: bool, learn: bool) -> np.ndarray:
    """Step the elements that the kernel does not know; return what each put out in the step before (T, signals)."""
    columns = []
    places = np.cumsum([0, *program.input_sizes])
    for t, row in enumerate(given):
        if reset and t % steps == 0:
            for element, _ in program.front.values():
                element.reset()
        seen = [output for element, _ in program.front.values() for output in element.outputs]
        columns.append(np.concatenate([np.zeros(0), *seen]))
        inputs = {("", i): row[places[i] : places[i + 1]] for i in range(len(places) - 1)}
        inputs |= {(path, k): out for path, (e, _) in program.front.items() for k, out in enumerate(e.outputs)}
        for element, sources in program.front.values():
            element.step(*(inputs[source] for source in sources), learn=learn)
    return np.array(columns).reshape(len(given), -1)
