"""The objective `streamnet`: learn a stream of images online, then evaluate with learning off. Imports no torch.

Task of arXiv 2302.13210, section III-A. Supervised: each image is shown for some steps, together with its class at the
modulatory input; afterwards, without that, the class is the output neuron with most spikes (the first of equals).
Unsupervised: the metric is the l2 distance between an input and its projection, in the paper's words "the projection in
the feature space defined by the synaptic weights". Our reading: x are the spikes or intensities that the learning
synapses receive, r the output spikes, and the distance is |x / |x| - W^T r / |W^T r||, 1 where nothing is put out.

`probe` shows the first samples to the net and stops a trial whose hidden layers are silent or saturated.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from models.metrics import Workload
from simulator.networks import build
from simulator.params import StreamnetParams
from simulator.run import Images, Record, layers, run
from simulator.streamnet import StreamNet, check_fingerprint
from simulator.synapses import OneToOne, Plastic

PROBED = 20  # samples after which a hopeless net is found out
SILENT, SATURATED = 0.004, 0.4  # spikes per neuron and step of a hidden layer, outside of which a net is hopeless
OUTPUT_SATURATED = 0.9  # the same for the output neurons; that they are silent at first is no fault
CHUNK = 1000  # samples learnt between two chances to interrupt
WATCHED = 5  # validation samples whose membrane updates are counted, by the slow step()
TRAIN_SAMPLES = 1000  # of those learnt, for the accuracy on them
VALIDATION_SEED, TEST_SEED, TRAIN_SEED = 2**32, 2**32 + 1, 2**32 + 2  # of spikes; learning has the trial's own seed


def train_streamnet(
    params: StreamnetParams, splits, report: Callable[[dict], None], device: str, seed: int
) -> tuple[dict, str, dict[str, np.ndarray], np.ndarray | None]:
    """Learn `splits.train` once and return (metrics, status, model, predicted).

    status is ok | silent | saturated | interrupted; `predicted`: the classes of the test part (B,), None unsupervised.
    `splits` has train, validation and test (loaders.Data of images); `report` gets the metrics "default" once. The
    model is the net's state, to be loaded by `rebuild`. `device` must be cpu in effect: the simulator knows no other.
    Raises ValueError for data that are not uint8 images.
    """
    started = time.perf_counter()
    train, validation, test = (flat_images(data) for data in splits)
    classes = len(splits.train.class_names)
    order = np.random.default_rng([seed, 2]).permutation(len(train))[: params.samples or None]
    net = build(params, train.shape[1], classes, seed)
    status, learnt = learn(net, params, train[order], splits.train.y[order], seed)
    default, record = score(net, params, validation, splits.validation.y, VALIDATION_SEED)
    report({"default": default})
    if status == "ok" and not record.counts.any():
        status = "silent"
    part = order[: min(learnt, TRAIN_SAMPLES)]
    tested, test_record = score(net, params, test, splits.test.y, TEST_SEED)
    metrics = {
        "default": default,
        "train_accuracy": score(net, params, train[part], splits.train.y[part], TRAIN_SEED)[0],
        "test_accuracy": tested,
        "epochs": 1,
        "samples": learnt,
        **costs(net, params, record, membrane_updates(net, params, validation[:WATCHED])),
        "seconds": time.perf_counter() - started,
    }
    predicted = test_record.counts.argmax(axis=1) if params.task == "supervised" else None
    return metrics, status, model_of(net, seed, train.shape[1], classes), predicted


def flat_images(data) -> np.ndarray:
    """Return the images of a loaders.Data as uint8 (B, N). Raises ValueError for another kind of data."""
    if data.x.dtype != np.uint8 or data.step_ms is not None or data.x.ndim < 3:
        raise ValueError(f"streamnet takes uint8 images (B, H, W), not {data.x.dtype} of shape {data.x.shape}")
    return data.x.reshape(len(data.x), -1)


def learn(
    net: StreamNet, params: StreamnetParams, images: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[str, int]:
    """Show the images (B, N) once with learning on. Returns (status, samples learnt); a hopeless net learns PROBED."""
    labels = labels if params.task == "supervised" else None
    status = probe(net, params, images[:PROBED], None if labels is None else labels[:PROBED], seed)
    first, last = 0, len(images) if status == "ok" else min(PROBED, len(images))
    try:
        while first < last:
            end = min(first + CHUNK, last)
            part = None if labels is None else labels[first:end]
            shown = Images(images[first:end], part, params.steps, seed, params.scale, params.reset, first)
            run(net, shown, True, params.run_precision)
            first = end
    except KeyboardInterrupt:
        status = "interrupted"
    return status, first


def probe(net: StreamNet, params: StreamnetParams, images: np.ndarray, labels: np.ndarray | None, seed: int) -> str:
    """Show the images by step(), which counts each layer's spikes, and put the net back. Returns ok, silent, saturated.

    Layers of one neuron are not judged: a lateral or inhibitory neuron may well be silent.
    """
    before = {name: array.copy() for name, array in net.state().items()}
    run(net, Images(images, labels, params.steps, seed, params.scale, params.reset), True, backend="step")
    activity = {
        name: (layer.counters[0] - before[f"{name}/counters"][0]) / layer.neuron.n
        for name, layer in net.elements.items()
        if layer.neuron.n > 1
    }
    net.load_state(before)
    shown = len(images) * params.steps
    for name, spikes in activity.items():
        if spikes > shown * (OUTPUT_SATURATED if name == "o" else SATURATED):
            return "saturated"
        if name != "o" and spikes < shown * SILENT:
            return "silent"
    return "ok"


def score(net, params, images, labels, seed) -> tuple[float, Record]:
    """Return what the task is judged by: `accuracy` or `similarity`."""
    return {"supervised": accuracy, "unsupervised": similarity}[params.task](net, params, images, labels, seed)


def accuracy(net, params, images, labels, seed) -> tuple[float, Record]:
    """Return the fraction of images (B, N) classified rightly, and the run's record. The net does not learn."""
    record = _evaluate(net, params, images, seed)
    return float((record.counts.argmax(axis=1) == labels).mean()) if len(images) else 0.0, record


def similarity(net, params, images, labels, seed) -> tuple[float, Record]:
    """Return 1 - the mean l2 distance between inputs and their projections (see above), and the run's record."""
    record = _evaluate(net, params, images, seed, kenyon=params.network == "mushroom_body")
    x = images if record.kenyon is None else record.kenyon
    projected = record.counts @ net.elements["o"].synapses[0].weights  # (B, E)
    return 1 - float(np.linalg.norm(_unit(x) - _unit(projected), axis=1).mean()) if len(images) else 0.0, record


def costs(net: StreamNet, params: StreamnetParams, record: Record, updates: float) -> dict[str, float | int]:
    """Return what an inference of a run cost, and the size of the net, by the names of `models.metrics`.

    `updates`: of the membranes, which the compiled kernels do not count. A plastic synapse operates also at weight 0.
    """
    found, neurons = layers(net), sum(layer.neuron.n for layer in layers(net))
    synapses = [synapse for layer in found for synapse in layer.synapses]
    sizes = [s.n_pre if isinstance(s, OneToOne) else s.n_pre * s.n_post for s in synapses]
    present = [np.count_nonzero(s.weights) if isinstance(s, Plastic) else s.fan_out.sum() for s in synapses]
    shown = len(record.counts)
    work = Workload(shown, record.spikes, shown * params.steps * neurons, record.operations)
    work.dense, work.updates, work.neuron_steps = shown * params.steps * sum(sizes), shown * updates, work.activations
    return work.metrics() | {
        "parameters": net.elements["o"].synapses[0].weights.size,
        "connection_sparsity": float(1 - sum(present) / sum(sizes)),
        "footprint_bytes": float(sum(array.nbytes for array in [*net.state().values(), *net.fixed().values()])),
    }


def membrane_updates(net: StreamNet, params: StreamnetParams, images: np.ndarray) -> float:
    """Return how many potentials change, the mean over images (B, N); in the first step of each all count.

    Found by step(), which is slow; the net is put back afterwards.
    """
    if not len(images):
        return 0.0
    before = {name: array.copy() for name, array in net.state().items()}
    watched = [net.monitor(f"{name}/v") for name in net.elements]
    run(net, Images(images, None, params.steps, VALIDATION_SEED, params.scale, params.reset), False, backend="step")
    net.monitors.clear()
    net.load_state(before)
    potentials = [monitor.array().reshape(len(images), params.steps, -1) for monitor in watched]  # (B, T, N)
    return sum(v[:, 0].size + np.count_nonzero(np.diff(v, axis=1)) for v in potentials) / len(images)


def model_of(net: StreamNet, seed: int, n_inputs: int, n_classes: int) -> dict[str, np.ndarray]:
    """Return copies of all state arrays and what else `rebuild` needs."""
    facts = {"seed": np.array(seed), "n_inputs": np.array(n_inputs), "n_classes": np.array(n_classes)}
    facts["fingerprint"] = net.fingerprint()
    return facts | {name: array.copy() for name, array in net.state().items()}


def rebuild(params: StreamnetParams, model: dict[str, np.ndarray]) -> StreamNet:
    """Return the net of a saved model. Fixed connections come from the seed, everything learnt from the arrays.

    `params` are those that it was trained with; others that make other connections or shapes are a ValueError.
    """
    state = dict(model)
    seed, n_inputs, n_classes = (int(state.pop(name)) for name in ("seed", "n_inputs", "n_classes"))
    net = build(params, n_inputs, n_classes, seed)
    check_fingerprint(net, state.pop("fingerprint"))
    net.load_state(state)
    return net


def _evaluate(net, params, images, seed, kenyon=False) -> Record:
    if not params.reset:
        net.reset()  # an evaluation does not depend on what was shown before it
    shown = Images(images, None, params.steps, seed, params.scale, params.reset)
    return run(net, shown, False, params.run_precision, kenyon=kenyon)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale the rows (B, E) to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
