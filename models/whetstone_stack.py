"""Several Whetstone nets of one architecture trained at once, in batched matrix products: for grids and repeats.

    accuracies = train_stack(configurations, seeds, splits)      # [(validation, test), ...], one a net

Each net has its own weights, order of samples, optimiser settings and schedule; what they learn is what
`models.whetstone_training.train` learns, but for rounding. For dense nets whose sharpening is fixed beforehand.
Letters in shapes: M nets, B samples, F inputs or N units of a layer, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from models.sharpeners import make_sharpener
from models.whetstone import THRESHOLD, Step, ramp
from models.whetstone_net import WhetstoneNet
from models.whetstone_params import WhetstoneParams
from models.whetstone_training import Images, check, check_binary

FREE = ("lr", "rho", "epsilon", "decay", "sh_start", "sh_duration", "sh_intermission", "sh_steps")  # per net
STACKABLE = {
    "network": ("dense",),
    "noise_location": ("none",),
    "sharpener": ("scheduled", "uniform", "simple"),
    "optimizer": ("rmsprop", "adadelta"),
    "activation": ("brelu", "sigmoid"),
    "autocast": (False,),
    "weight_bits": (0,),
    "epochs": (0,),  # to the end of the sharpening
}


class Stack(nn.Module):
    """M nets as one: each parameter and buffer of a WhetstoneNet with a leading M."""

    def __init__(self, nets: list[WhetstoneNet]) -> None:
        super().__init__()
        self.params, self.depth = nets[0].params, len(nets[0].links)
        self.weights = nn.ParameterDict()
        for layer in range(self.depth):
            self._take(f"weight{layer}", [net.links[layer].weight for net in nets])  # (M, N, F)
            self._take(f"bias{layer}", [net.links[layer].bias[None] for net in nets])  # (M, 1, N)
            if self.params.batch_norm:
                self._take(f"scale{layer}", [net.norms[layer].weight[None] for net in nets])
                self._take(f"offset{layer}", [net.norms[layer].bias[None] for net in nets])
        self.mean = [torch.zeros_like(self.weights[f"bias{layer}"]) for layer in range(self.depth)]
        self.variance = [torch.ones_like(mean) for mean in self.mean]
        self.key = torch.stack([net.decoder.key for net in nets])  # (M, K, N)
        self.sharpness = torch.zeros(len(nets), self.depth)

    def _take(self, name: str, tensors: list[nn.Parameter]) -> None:
        stacked = torch.stack([tensor.detach() for tensor in tensors])
        learnt = tensors[0].requires_grad
        self.weights[name] = nn.Parameter(stacked, requires_grad=learnt)

    def forward(self, x: torch.Tensor, training: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return logits (M, B, K) and each layer's activities for x (M, B, F)."""
        activities = []
        for layer in range(self.depth):
            weight, bias = self.weights[f"weight{layer}"], self.weights[f"bias{layer}"]
            sums = torch.baddbmm(bias, x, weight.transpose(1, 2))  # (M, B, N)
            if self.params.batch_norm:
                sums = self._normalise(sums, layer, training)
            x = self._unit(sums, self.sharpness[:, layer])
            activities.append(x)
        return torch.bmm(2 * x - 1, (2 * self.key - 1).transpose(1, 2)), activities

    def _normalise(self, sums: torch.Tensor, layer: int, training: bool) -> torch.Tensor:
        mean, variance = self.mean[layer], self.variance[layer]
        if training:
            batch, new = sums.shape[1], 1 - self.params.bn_momentum_dense
            mean, variance = sums.mean(1, keepdim=True), sums.var(1, correction=0, keepdim=True)
            with torch.no_grad():
                self.mean[layer].lerp_(mean, new)
                self.variance[layer].lerp_(variance * (batch / (batch - 1)), new)
        gain = self.weights[f"scale{layer}"] / torch.sqrt(variance + self.params.bn_epsilon)
        return (sums - mean) * gain + self.weights[f"offset{layer}"]

    def _unit(self, sums: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
        kind, sharp = self.params.activation, sharpness == 1
        if sharp.all():
            return Step.apply(sums, THRESHOLD[kind])
        ramped = ramp(sums, sharpness[:, None, None], kind)
        return torch.where(sharp[:, None, None], Step.apply(sums, THRESHOLD[kind]), ramped) if sharp.any() else ramped


class Optimizer:
    """RMSprop or Adadelta as `torch.optim` has them, with settings (M, 1, 1) of each net's own."""

    def __init__(self, weights: list[nn.Parameter], params: list[WhetstoneParams]) -> None:
        self.weights, self.kind = weights, params[0].optimizer
        self.lr, self.rho, self.epsilon, self.decay = (
            torch.tensor([getattr(p, name) for p in params])[:, None, None]
            for name in ("lr", "rho", "epsilon", "decay")
        )
        self.squares = [torch.zeros_like(weight) for weight in weights]
        self.moved = [torch.zeros_like(weight) for weight in weights] if self.kind == "adadelta" else []

    @torch.no_grad()
    def step(self, update: int) -> None:
        """Change the weights by their gradients; `update` counts from 0."""
        rate = self.lr / (1 + self.decay * update)
        for index, weight in enumerate(self.weights):
            gradient, square = weight.grad, self.squares[index]
            square.mul_(self.rho).add_((1 - self.rho) * gradient * gradient)
            if self.kind == "rmsprop":
                weight.sub_(rate * gradient / (square.sqrt().add_(self.epsilon)))
                continue
            moved = self.moved[index]
            change = (moved + self.epsilon).div_(square + self.epsilon).sqrt_().mul_(gradient)
            moved.mul_(self.rho).add_((1 - self.rho) * change * change)
            weight.sub_(change.mul_(rate))


def train_stack(configurations: list[WhetstoneParams], seeds: list[int], splits) -> list[tuple[float, float]]:
    """Train net m with configurations[m] and seeds[m]; return its (validation, test) accuracy, fully sharpened.

    The configurations may differ in what FREE names. Raises ValueError for what cannot be stacked.
    """
    check_stackable(configurations)
    train, validation, test = (Images(data, "cpu") for data in splits)
    check(configurations[0], splits.train)
    shape, classes = train.x.shape[1:], len(splits.train.class_names)
    nets = [WhetstoneNet(p, shape, classes, seed) for p, seed in zip(configurations, seeds, strict=True)]
    stack, pixels = Stack(nets), nets[0].pixels
    optimizer = Optimizer([weight for weight in stack.weights.values() if weight.requires_grad], configurations)
    sharpeners = [make_sharpener(params, stack.depth) for params in configurations]
    ends = [sharpener.epochs for sharpener in sharpeners]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    train_pixels, results, update = pixels(train.x), [(math.nan, math.nan)] * len(nets), 0
    for epoch in range(max(ends)):
        orders = torch.as_tensor(np.stack([rng.permutation(len(train.y)) for rng in rngs]))  # (M, all samples)
        update = _train_epoch(stack, optimizer, sharpeners, train_pixels, train.y, orders, epoch, update)
        if epoch + 1 in ends:
            stack.sharpness.fill_(1)
            reached = zip(
                _accuracies(stack, pixels(validation.x), validation.y),
                _accuracies(stack, pixels(test.x), test.y),
                strict=True,
            )
            results = [new if end == epoch + 1 else old for end, old, new in zip(ends, results, reached, strict=True)]
    return results


def check_stackable(configurations: list[WhetstoneParams]) -> None:
    """Raise ValueError where configurations differ in what must be the same, or ask for what a stack cannot do."""
    first = configurations[0]
    for name, allowed in STACKABLE.items():
        if getattr(first, name) not in allowed:
            raise ValueError(f"{name} must be one of {allowed} in a stack, not {getattr(first, name)!r}")
    for other in configurations[1:]:
        for name, value in vars(other).items():
            if name not in FREE and value != getattr(first, name):
                raise ValueError(f"{name} must be the same in a stack, not {getattr(first, name)!r} and {value!r}")


def _train_epoch(stack, optimizer, sharpeners, pixels, labels, orders, epoch: int, update: int) -> int:
    size = stack.params.batch_size
    batches = math.ceil(orders.shape[1] / size)
    for batch in range(batches):
        chosen = orders[:, batch * size : (batch + 1) * size]  # (M, B)
        if chosen.shape[1] == 1 and batch:
            continue
        stack.sharpness.copy_(torch.tensor([sharpener.at(epoch + batch / batches) for sharpener in sharpeners]))
        for weight in stack.weights.values():
            weight.grad = None
        logits, _ = stack(pixels[chosen], training=True)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels[chosen].flatten(), reduction="sum")
        (loss / chosen.shape[1]).backward()  # the mean within each net, the sum over the nets
        optimizer.step(update)
        update += 1
    return update


@torch.no_grad()
def _accuracies(stack: Stack, pixels: torch.Tensor, labels: torch.Tensor) -> list[float]:
    logits, activities = stack(pixels.expand(len(stack.key), *pixels.shape), training=False)
    check_binary(activities)
    return (logits.argmax(2) == labels).double().mean(1).tolist()
