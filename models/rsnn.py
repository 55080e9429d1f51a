"""A recurrent spiking net of snnTorch neurons, with adaptive thresholds for a part of them, and its hyperparameters.

    net = RSNN(EpropParams(neurons=64), n_inputs=16, n_classes=10)
    outputs = net(x)  # x (B, T, C) of zeros and ones -> readout (B, T, K)

Letters in shapes: B samples, T steps, C input channels, N neurons, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import snntorch as snn
import torch
from torch import nn

from models.params import MOST_BITS, Range, check, check_bits

POSITIVE = Range(0, above=True)
FRACTION = Range(0, 1)


@dataclass(frozen=True)
class EpropParams:
    """Hyperparameters of the recurrent net and its training. Raises ValueError for a value out of its range."""

    # Encoding of images over time, one step is 1 ms; events keep their own steps
    coding: str = "thermometer"  # thermometer | rate | latency | poisson
    scan: str = "both"  # what a block of steps shows: row r | both row r and column r
    steps_per_row: int = 5  # length of a block [steps]
    tail_steps: int = 8  # empty steps after the last block [steps]
    # Augmentation of events, for training alone, drawn anew each epoch; 0 = off
    time_jitter: float = 0.0  # standard deviation of each event's time [ms]
    drop_events: float = 0.0  # probability to lose an event
    noise_events: float = 0.0  # added events, mean number per sample
    time_skew: float = 0.0  # a recording is stretched by up to this part
    time_shift: float = 0.0  # a recording is moved by up to so much [ms]
    # Neurons
    neurons: int = 100  # hidden neurons
    tau_mem: float = 10.0  # membrane time constant [ms]
    threshold: float = 1.0  # of the membrane, in units of the weights
    reset: str = "subtract"  # subtract the threshold | zero
    reset_delay: bool = True  # reset one step after the spike, as in snnTorch
    alif_fraction: float = 0.0  # part of the neurons with an adaptive threshold (ALIF)
    tau_adapt: float = 200.0  # time constant of the adaptation [ms]
    adapt_strength: float = 0.1  # rise of the threshold with each spike, in units of the weights
    tau_out: float = 30.0  # time constant of the readout [ms]
    bias: bool = False  # a bias for each hidden neuron
    weight_bits: int = 0  # of each weight while training and after it, 2 to 16; 0 = floating point
    input_gain: float = 1.0  # initial input weights ~ N(0, input_gain^2 / C)
    recurrent_gain: float = 0.5  # initial recurrent weights ~ N(0, recurrent_gain^2 / N)
    # Learning rule
    rule: str = "eprop"  # eprop | bptt (surrogate gradients through time)
    feedback: str = "symmetric"  # learning signals of e-prop: symmetric | random | adaptive
    feedback_decay: float = 0.01  # part of readout and feedback weights lost per update, with adaptive feedback
    dampening: float = 0.3  # height of the surrogate derivative, times 1 / threshold
    target_window: float = 0.35  # last part of the sequence, in which the loss counts
    rate_target: float = 50.0  # firing rate that the regularisation aims at [Hz]
    rate_cost: float = 1.0  # weight of sum_j (f_j - rate_target)^2, f_j in spikes per ms [ms^2]
    # Training
    optimizer: str = "adam"  # adam | rmsprop | sgd (momentum 0.9)
    lr: float = 0.008  # initial learning rate
    schedule: str = "cosine"  # of the learning rate, over the epochs: cosine (to zero) | constant
    batch_size: int = 32  # samples per update
    epochs: int = 30  # at most
    patience: int = 0  # stop after so many epochs without a better validation accuracy; 0 = never
    # When a net is given up (Firmin et al. 2024): looked at before training and in every epoch
    silent_spikes: int = 1  # a sample with fewer hidden spikes is silent
    silent_fraction: float = 0.5  # stop when more of the samples are silent; 1 = never
    saturated_activity: float = 0.5  # stop when a neuron fires in more of the steps, on average; 1 = never

    def __post_init__(self) -> None:
        check(self, CHOICES, RANGES)
        check_bits("weight_bits", self.weight_bits)


CHOICES = {
    "coding": ("thermometer", "rate", "latency", "poisson"),
    "scan": ("both", "row"),
    "reset": ("subtract", "zero"),
    "rule": ("eprop", "bptt"),
    "feedback": ("symmetric", "random", "adaptive"),
    "optimizer": ("adam", "rmsprop", "sgd"),
    "schedule": ("cosine", "constant"),
}
RANGES = {
    "steps_per_row": Range(1, 1000),
    "tail_steps": Range(0, 10_000),
    "time_jitter": Range(0),
    "drop_events": FRACTION,
    "noise_events": Range(0),
    "time_skew": FRACTION,
    "time_shift": Range(0),
    "neurons": Range(1, 65_535),  # the kernels number neurons with 16 bits
    "tau_mem": POSITIVE,
    "threshold": POSITIVE,
    "alif_fraction": FRACTION,
    "tau_adapt": POSITIVE,
    "adapt_strength": Range(0),
    "tau_out": POSITIVE,
    "weight_bits": Range(0, MOST_BITS),
    "input_gain": Range(0),
    "recurrent_gain": Range(0),
    "feedback_decay": Range(0, 1),
    "dampening": POSITIVE,
    "target_window": Range(0, 1, above=True),
    "rate_target": Range(0),
    "rate_cost": Range(0),
    "lr": POSITIVE,
    "batch_size": Range(1),
    "epochs": Range(1),
    "patience": Range(0),
    "silent_spikes": Range(1),
    "silent_fraction": FRACTION,
    "saturated_activity": FRACTION,
}


class Surrogate(torch.autograd.Function):
    """Spike where the distance v - A to the threshold is above 0; for its derivative take psi of Bellec et al. 2020:

    psi = dampening / threshold * max(0, 1 - |v - A| / threshold), with the threshold before adaptation.
    """

    @staticmethod
    def forward(ctx, distance: torch.Tensor, threshold: torch.Tensor, dampening: float) -> torch.Tensor:
        ctx.save_for_backward(slope(distance, threshold, dampening))
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple:
        return gradient * ctx.saved_tensors[0], None, None


def slope(distance: torch.Tensor, threshold: torch.Tensor, dampening: float) -> torch.Tensor:
    """Return the surrogate derivative psi for distances v - A (..., N)."""
    return dampening / threshold * torch.clamp(1 - distance.abs() / threshold, min=0)


class RSNN(nn.Module):
    """Input weights, a recurrent layer of LIF and ALIF neurons, readout weights and leaky outputs.

    Bellec et al. 2020, Nat. Commun. 11:3625, eq. 6-11, in the steps and with the resets of snn.RLeaky:
        v[t] = a v[t-1] + W_in x[t] + W_rec z[t-1] - reset,  a = exp(-dt / tau_mem)
        z[t] = 1 where v[t] > A[t] = threshold + adapt_strength b[t],  b[t] = exp(-dt / tau_adapt) b[t-1] + z[t-1]
        y[t] = exp(-dt / tau_out) y[t-1] + W_out z[t] + bias
    The state dict is that of an nn.Linear `input`, an snn.RLeaky `hidden`, an nn.Linear `readout`, an snn.Leaky
    `output`, the adaptation's constants (N,) and, unless it is symmetric, the `feedback` (K, N). The last
    round(alif_fraction N) neurons adapt; LIF neurons have adapt_strength 0. No neuron is connected to itself.
    """

    def __init__(self, params: EpropParams, n_inputs: int, n_classes: int, step_ms: float = 1.0, seed: int = 0) -> None:
        """Draw the weights from a generator of their own with `seed`; `step_ms` is the length of a step [ms]."""
        super().__init__()
        self.params, self.step_ms = params, step_ms
        size = params.neurons
        self.input = nn.Linear(n_inputs, size, bias=False)
        self.hidden = snn.RLeaky(
            beta=torch.full((size,), math.exp(-step_ms / params.tau_mem)),
            linear_features=size,
            threshold=torch.full((size,), float(params.threshold)),
            reset_mechanism=params.reset,
            reset_delay=params.reset_delay,
        )
        self.hidden.recurrent.bias.requires_grad_(params.bias)
        self.readout = nn.Linear(size, n_classes)
        self.output = snn.Leaky(
            beta=torch.full((n_classes,), math.exp(-step_ms / params.tau_out)), reset_mechanism="none"
        )
        adaptive = torch.arange(size) >= size - round(params.alif_fraction * size)
        self.register_buffer("adapt_decay", torch.full((size,), math.exp(-step_ms / params.tau_adapt)))
        self.register_buffer("adapt_strength", adaptive * float(params.adapt_strength))
        self._draw_weights(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _draw_weights(self, generator: torch.Generator) -> None:
        params, classes = self.params, self.readout.out_features
        gain_out = 1 - float(self.output.beta[0])  # the filter sums over 1 / gain_out steps: outputs start small
        _normal(self.input.weight, params.input_gain, generator)
        _normal(self.hidden.recurrent.weight, params.recurrent_gain, generator)
        _normal(self.readout.weight, gain_out, generator)
        self.hidden.recurrent.weight.fill_diagonal_(0)
        self.hidden.recurrent.bias.zero_()
        self.readout.bias.zero_()
        self.feedback = None
        if params.feedback != "symmetric":
            weights = _normal(torch.empty(classes, params.neurons), gain_out, generator)  # (K, N)
            self.feedback = nn.Parameter(weights, requires_grad=params.feedback == "adaptive")

    def weights(self) -> list[nn.Parameter]:
        """Return the weights of an inference, biases left out: w_in (N, C), w_rec (N, N), w_out (K, N)."""
        return [self.input.weight, self.hidden.recurrent.weight, self.readout.weight]

    def deployed(self) -> list[torch.Tensor]:
        """Return what an inference needs: no feedback weights, the adaptation's constants of neurons that adapt."""
        adapts = self.adapt_strength != 0
        needed = {name: value for name, value in self.state_dict().items() if name != "feedback"}
        return [value[adapts] if name.startswith("adapt_") else value for name, value in needed.items()]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the readout (B, T, K) for x (B, T, C) of zeros and ones, with surrogate gradients through time."""
        return self.simulate(x)[0]

    def simulate(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the readout (B, T, K), the spikes (B, T, N) and v - A (B, T, N) for x (B, T, C).

        Gradients flow as in snn.RLeaky: through every path but the delayed reset.
        """
        spikes, distances = zip(*((spikes, distance) for spikes, distance, _ in self.steps(x)), strict=True)
        spikes = torch.stack(spikes, 1)
        return self._leak(self.readout(spikes)), spikes, torch.stack(distances, 1)

    def steps(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield for each step of x (B, T, C) the spikes, v - A as it fired, and v as the step ends; (B, N) each."""
        cell = self.hidden
        potential = torch.zeros(len(x), self.params.neurons, dtype=self.readout.weight.dtype, device=x.device)
        spikes = held = raised = torch.zeros_like(potential)
        for current in self.input(x.to(potential.dtype)).unbind(1):  # (B, N)
            potential = cell.beta * potential + current + cell.recurrent(spikes)
            potential = self._reset(potential, held)
            raised = self.adapt_decay * raised + self.adapt_strength * spikes
            distance = potential - (cell.threshold + raised)
            spikes = Surrogate.apply(distance, cell.threshold, self.params.dampening)
            if not cell.reset_delay:
                potential = self._reset(potential, spikes - held)
            held = (potential > cell.threshold + raised).to(potential.dtype)  # what the next step resets; no gradient
            yield spikes, distance, potential

    def _reset(self, potential: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
        if self.params.reset == "zero":
            return potential - amount * potential
        return potential - amount * self.hidden.threshold

    def _leak(self, currents: torch.Tensor) -> torch.Tensor:  # (B, T, K)
        outputs, output = [], torch.zeros_like(currents[:, 0])
        for current in currents.unbind(1):
            output = self.output.beta * output + current
            outputs.append(output)
        return torch.stack(outputs, 1)

    def saved(self) -> dict:
        """Return what rebuilds the net: its state dict on the CPU and plain values, loadable with weights_only=True."""
        return {
            "state_dict": {name: value.detach().cpu().clone() for name, value in self.state_dict().items()},
            "params": asdict(self.params),
            "n_inputs": self.input.in_features,
            "n_classes": self.readout.out_features,
            "step_ms": self.step_ms,
        }


def rebuild(saved: dict) -> RSNN:
    """Return the net of `RSNN.saved()`."""
    net = RSNN(EpropParams(**saved["params"]), saved["n_inputs"], saved["n_classes"], saved["step_ms"])
    net.load_state_dict(saved["state_dict"])
    return net


def _normal(weights: torch.Tensor, gain: float, generator: torch.Generator) -> torch.Tensor:
    """Draw weights (to, from) with standard deviation gain / sqrt(from)."""
    return weights.normal_(0, gain / math.sqrt(weights.shape[1]), generator=generator)
