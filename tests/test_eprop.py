"""e-prop's gradients against autograd, the written-out eligibility traces, snnTorch and a case worked by hand."""

import math

import numpy as np
import pytest
import snntorch as snn
import torch

from models import eprop
from models.rsnn import RSNN, EpropParams

STEPS, CHANNELS, CLASSES = 30, 5, 3
RESETS = [(reset, delay) for reset in ("subtract", "zero") for delay in (True, False)]


def build(dtype=torch.float64, step_ms=1.0, seed=1, classes=CLASSES, channels=CHANNELS, **changes):
    """A net that fires in about a tenth of the steps, and a batch for it."""
    values = {"neurons": 20, "input_gain": 1.5, "recurrent_gain": 1.0, "target_window": 0.5} | changes
    params = EpropParams(**values)
    rng = np.random.default_rng(seed)
    x = (rng.random((4, STEPS, channels)) < 0.3).astype(np.uint8)  # (B, T, C)
    return RSNN(params, channels, classes, step_ms, seed).to(dtype), x, rng.integers(0, classes, 4)


class Triangle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, distance, base, dampening):
        ctx.save_for_backward(distance)
        ctx.constants = base, dampening
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, gradient):
        base, dampening = ctx.constants
        return gradient * dampening / base * (1 - ctx.saved_tensors[0].abs() / base).clamp(min=0), None, None


def loop(net, x, y, local=True):
    """The net written out for autograd: loss with z detached in the recurrent input and in the reset, if `local`."""
    params, dtype = net.params, net.readout.weight.dtype
    a, rho, kappa = (net.hidden.beta[0], net.adapt_decay[0], net.output.beta[0])
    strength, inputs = net.adapt_strength, torch.as_tensor(x).to(dtype)
    v = b = z = again = torch.zeros(len(x), params.neurons, dtype=dtype)
    out, loss, total = torch.zeros(len(x), net.readout.out_features, dtype=dtype), 0, 0
    first = STEPS - round(params.target_window * STEPS)
    for t in range(STEPS):
        fed_back = z.detach() if local else z
        drive = net.input(inputs[:, t]) + fed_back @ net.hidden.recurrent.weight.T
        b = rho * b + z
        barrier = params.threshold + strength * b
        v = a * v + drive
        if params.reset == "zero":
            v = torch.where(again > 0, torch.zeros_like(v), v)
        else:
            v = v - again * params.threshold
        z = Triangle.apply(v - barrier, params.threshold, params.dampening)
        if not params.reset_delay:
            fired = (z.detach() if local else z) - again
            v = v - fired * (v if params.reset == "zero" else params.threshold)
        again = (v > barrier).to(dtype)
        out = kappa * out + net.readout(z)
        total = total + z.sum(0)
        if t >= first:
            loss = loss + torch.nn.functional.cross_entropy(out, torch.as_tensor(y)) / (STEPS - first)
    rates = total / (len(x) * STEPS * net.step_ms)
    return loss + params.rate_cost * ((rates - params.rate_target / 1000) ** 2).sum(), total


def weights(net):
    return [weight for weight in (*net.input.parameters(), net.hidden.recurrent.weight, *net.readout.parameters())]


def by_autograd(net, x, y, local=True):
    loss, _ = loop(net, x, y, local)
    found = list(torch.autograd.grad(loss, weights(net)))
    found[1 + (net.input.bias is not None)].fill_diagonal_(0)
    return float(loss), found


def difference(found, expected):
    """Norm of the difference of two lists of gradients, relative to the expected ones' norm."""
    found, expected = (torch.cat([gradient.flatten() for gradient in each]) for each in (found, expected))
    return float((found - expected).norm() / expected.norm())


def learned(net, x, y):
    loss, trace = eprop.learn(net, x, y)
    return loss, [weight.grad.clone() for weight in weights(net)], trace


@pytest.mark.parametrize(("reset", "reset_delay"), RESETS)
@pytest.mark.parametrize("alif_fraction", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("neurons", [1, 20, 100])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_gradients_equal_autograd_with_two_detaches(reset, reset_delay, alif_fraction, neurons, dtype, bound):
    net, x, y = build(
        dtype, neurons=neurons, reset=reset, reset_delay=reset_delay, alif_fraction=alif_fraction, rate_cost=30.0,
        bias=True, tau_adapt=15, adapt_strength=0.3,
    )  # fmt: skip
    loss, found, trace = learned(net, x, y)
    expected_loss, expected = by_autograd(net, x, y)
    assert 0.02 < trace.counts.double().mean() / STEPS < 0.5
    assert loss == pytest.approx(expected_loss, rel=bound * 10)
    assert difference(found, expected) <= bound
