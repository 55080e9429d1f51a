"""Training of a recurrent net: epochs of `models.eprop.learn`, the best weights by validation accuracy, its measures.

Letters in shapes: B samples, T steps, C input channels, N neurons, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from models import eprop, metrics
from models.encoders import IMAGE_STEP_MS, encode
from models.quantise import quantised
from models.rsnn import RSNN, EpropParams

PROBE_SAMPLES = 100  # looked at before training: is the net alive?
EVALUATION_BATCH = 256
VALIDATION_SEED, TEST_SEED = 1, 2  # of a random encoding, the same for every trial

Report = Callable[[dict], None]


AUGMENTATION = ("time_jitter", "drop_events", "noise_events", "time_skew", "time_shift")


class Encoded:
    """Samples as spikes; a random encoding is drawn anew by `redraw`, which also augments events."""

    def __init__(self, data, params: EpropParams, seed: int, augment: Callable | None = None) -> None:
        """Encode `data` (a loaders.Data) with a generator of its own from `seed`. Raises ValueError as `encode`.

        `augment(x, step_ms, rng, **strengths)` changes events (B, T, C) when they are redrawn.
        """
        self.data, self.params, self.augment = data, params, augment
        self.y = data.y
        self.rng = np.random.default_rng(seed)
        self.x = self._encode()  # (B, T, C)

    def redraw(self) -> None:
        """Encode again where that is random, or draw augmented events. Raises ValueError for augmented images."""
        strengths = {name: getattr(self.params, name) for name in AUGMENTATION}
        if self.data.step_ms is None:
            if any(strengths.values()):
                raise ValueError(f"only events can be augmented, images cannot: set {', '.join(AUGMENTATION)} to 0")
            if self.params.coding == "poisson":
                self.x = self._encode()
        elif any(strengths.values()):
            self.x = self.augment(self.data.x, self.data.step_ms, self.rng, **strengths)

    def _encode(self) -> np.ndarray:
        return encode(self.data.x, self.params, self.rng, events=self.data.step_ms is not None)


@dataclass
class Condition:
    """Counts hidden spikes while batches pass and says whether the net is alive, as its parameters define it."""

    params: EpropParams
    expected: int  # samples in all
    silent: int = 0  # samples with too few spikes, so far
    samples: int = 0  # so far
    activity: float = 0.0  # spikes per neuron and step, summed over samples

    def add(self, counts: torch.Tensor, steps: int) -> None:
        """Count the spikes of a batch: counts (B, N)."""
        totals = counts.sum(1)
        self.samples += len(counts)
        self.silent += int((totals < self.params.silent_spikes).sum())
        self.activity += float(totals.sum()) / (steps * counts.shape[1])

    @property
    def status(self) -> str:
        """silent: too many of all the samples expected; saturated: too active so far; else ok."""
        if self.silent > self.params.silent_fraction * self.expected:
            return "silent"
        if self.activity > self.params.saturated_activity * self.samples:
            return "saturated"
        return "ok"


@dataclass
class Best:
    """The weights with the best validation accuracy so far, the first of equals."""

    accuracy: float = -1.0
    epoch: int = -1  # after which they were reached; 0 = before training
    saved: dict | None = None  # RSNN.saved()
    epochs: int = 0  # evaluated so far

    def offer(self, net: RSNN, accuracy: float, epoch: int) -> None:
        """Keep a copy of the net's weights if they are better."""
        self.epochs = epoch
        if accuracy > self.accuracy:
            self.accuracy, self.epoch, self.saved = accuracy, epoch, net.saved()


def fit(net: RSNN, train: Encoded, validation: Encoded, report: Report, seed: int) -> tuple[Best, str]:
    """Train `net`; return the best weights and how it ended.

    ok, silent, saturated, or interrupted: a KeyboardInterrupt after the first evaluated epoch ends the training, before
    that it is raised. A net that is silent or saturated before training is evaluated as it stands.
    """
    params, best = net.params, Best()
    with quantised(net, params.weight_bits):
        status = condition(net, train.x[:PROBE_SAMPLES]).status
    if status != "ok":
        _evaluate_epoch(net, validation, best, report, {"epoch": 0})
        return best, status
    optimizer, rng = _optimizer(net), np.random.default_rng(seed)
    try:
        for epoch in range(1, params.epochs + 1):
            _set_learning_rate(optimizer, params, epoch)
            train.redraw()
            measures, status = _train_epoch(net, optimizer, train, rng)
            _evaluate_epoch(net, validation, best, report, {"epoch": epoch} | measures)
            if status != "ok" or (params.patience and epoch - best.epoch >= params.patience):
                break
    except KeyboardInterrupt:
        if best.saved is None:
            raise
        return best, "interrupted"
    return best, status


def accuracy(net: RSNN, samples: Encoded) -> float:
    """Return the part of the samples that the net classifies correctly."""
    return int((predictions(net, samples) == samples.y).sum()) / len(samples.y)


def predictions(net: RSNN, samples: Encoded) -> np.ndarray:
    """Return the class that the net gives each sample (B,)."""
    batches = _batches(samples, np.arange(len(samples.y)), EVALUATION_BATCH)
    return np.concatenate([eprop.predict(net, eprop.run(net, x).outputs).cpu().numpy() for x, _ in batches])


def measures(net: RSNN, train: Encoded, validation: Encoded, test: Encoded) -> dict[str, float | int]:
    """Return the accuracies of the chosen weights and, on the validation part, what an inference costs."""
    accuracies = {"train_accuracy": accuracy(net, train), "test_accuracy": accuracy(net, test)}
    return accuracies | costs(net, validation)


def condition(net: RSNN, x: np.ndarray) -> Condition:
    """Return the condition of the net on samples x (B, T, C)."""
    result = Condition(net.params, len(x))
    result.add(eprop.run(net, x).counts, x.shape[1])
    return result


def costs(net: RSNN, samples: Encoded) -> dict[str, float | int]:
    """Return what an inference costs, on average over the samples, and the size of the net."""
    arrays, parts, silent = [weight.detach().cpu().numpy() for weight in net.weights()], [], 0
    for x, _ in _batches(samples, np.arange(len(samples.y)), EVALUATION_BATCH):
        trace = eprop.run(net, x)
        fired = trace.spikes()  # (B, T, N)
        silent += int((fired.sum((1, 2), dtype=np.int64) < net.params.silent_spikes).sum())
        parts.append(metrics.recurrent_net_workload(x, fired, *arrays))
        parts[-1].updates = membrane_updates(net, x, trace.outputs)
    found = metrics.add(parts).metrics()
    seconds = samples.x.shape[1] * net.step_ms / 1000
    return found | {
        "rate_hz": found["spikes_per_inference"] / (net.params.neurons * seconds),
        "silent_fraction": silent / len(samples.y),
        "parameters": _size(net),
        "connection_sparsity": metrics.connection_sparsity(arrays),
        "footprint_bytes": metrics.footprint_bytes(net.deployed(), arrays, net.params.weight_bits),
    }


@torch.no_grad()
def membrane_updates(net: RSNN, x: np.ndarray, outputs: torch.Tensor) -> int:
    """Count the potentials of hidden neurons and readout (B, T, K) that change from step to step, and all at first."""
    before, updates = None, outputs[:, 0].numel() + int(torch.count_nonzero(outputs.diff(dim=1)))
    for _, _, potential in net.steps(torch.as_tensor(x, device=outputs.device)):
        changed = torch.ones_like(potential) if before is None else potential != before
        updates, before = updates + int(torch.count_nonzero(changed)), potential
    return updates


def step_length(data) -> float:
    """Return the length of a step [ms] of `data` once encoded."""
    return IMAGE_STEP_MS if data.step_ms is None else float(data.step_ms)


def _size(net: RSNN) -> int:
    """Count the net's weights and biases: feedback and the absent self-connections are none."""
    trained = ((name, weights) for name, weights in net.named_parameters() if weights.requires_grad)
    total = sum(weights.numel() for name, weights in trained if name != "feedback")
    return total - net.params.neurons


def _train_epoch(net: RSNN, optimizer, train: Encoded, rng: np.random.Generator) -> tuple[dict, str]:
    """Train one epoch, or up to the batch where the net is silent or saturated; return measures and status."""
    state, losses, correct = Condition(net.params, len(train.y)), 0.0, 0
    for x, y in _batches(train, rng.permutation(len(train.y)), net.params.batch_size):
        with quantised(net, net.params.weight_bits):
            loss, trace = eprop.learn(net, x, y)
        optimizer.step()
        eprop.decay_feedback(net)
        losses += loss * len(y)
        correct += int((eprop.predict(net, trace.outputs).cpu().numpy() == y).sum())
        state.add(trace.counts, x.shape[1])
        if state.status != "ok":
            break
    measures = {"train_accuracy": correct / state.samples, "loss": losses / state.samples}
    measures["rate_hz"] = 1000 * state.activity / (state.samples * net.step_ms)
    return measures, state.status


def _evaluate_epoch(net: RSNN, validation: Encoded, best: Best, report: Report, measures: dict) -> None:
    """Evaluate, keep the weights if they are the best, report what is finite."""
    with quantised(net, net.params.weight_bits):
        reached = accuracy(net, validation)
        best.offer(net, reached, measures["epoch"])
    measures = {"default": best.accuracy, "validation_accuracy": reached} | measures
    report({name: value for name, value in measures.items() if math.isfinite(value)})


def _batches(samples: Encoded, order: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield samples.x[chosen], samples.y[chosen]


def _optimizer(net: RSNN) -> torch.optim.Optimizer:
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    if net.params.optimizer == "adam":
        return torch.optim.Adam(weights)
    return torch.optim.RMSprop(weights) if net.params.optimizer == "rmsprop" else torch.optim.SGD(weights, momentum=0.9)


def _set_learning_rate(optimizer: torch.optim.Optimizer, params: EpropParams, epoch: int) -> None:
    """Set the rate of epoch 1, 2, ...: with the cosine schedule it falls from lr towards 0 after the last epoch."""
    done = (epoch - 1) / params.epochs
    factor = (1 + math.cos(math.pi * done)) / 2 if params.schedule == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = params.lr * factor
