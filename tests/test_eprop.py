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
    values = {"neurons": 20, "input_gain": 1.5, "recurrent_gain": 1.0, "target_window": 0.5, "rate_cost": 0} | changes
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
    a, rho, kappa = net.hidden.beta[0], net.adapt_decay[0], net.output.beta[0]
    strength, inputs = net.adapt_strength, torch.as_tensor(x).to(dtype)
    v = b = z = again = torch.zeros(len(x), params.neurons, dtype=dtype)
    out, loss, total = torch.zeros(len(x), net.readout.out_features, dtype=dtype), 0, 0
    first = STEPS - round(params.target_window * STEPS)
    for t in range(STEPS):
        fed_back = z.detach() if local else z
        drive = net.input(inputs[:, t]) + net.hidden.recurrent(fed_back)
        b = rho * b + z
        barrier = params.threshold + strength * b
        v = a * v + drive
        v = v - again * (v if params.reset == "zero" else params.threshold)
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
    layers = (*net.input.parameters(), *net.hidden.recurrent.parameters(), *net.readout.parameters())
    return [weight for weight in layers if weight.requires_grad]


def by_autograd(net, x, y, local=True):
    loss, _ = loop(net, x, y, local)
    found = list(torch.autograd.grad(loss, weights(net)))
    found[1].fill_diagonal_(0)  # no self-connections
    return float(loss.detach()), found


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
        bias=True, tau_adapt=15, adapt_strength=0.3, step_ms=2.0,
    )  # fmt: skip
    loss, found, trace = learned(net, x, y)
    expected_loss, expected = by_autograd(net, x, y)
    assert 0.02 < trace.counts.double().mean() / STEPS < 0.5
    assert loss == pytest.approx(expected_loss, rel=bound * 10)
    assert difference(found, expected) <= bound


def written_out(net, x, y):
    """dE/dW_in, dE/dW_rec by eq. 3, 4 and 22-25 with a trace per synapse and sample; subtractive reset, delayed."""
    params = net.params
    w_in, w_rec, w_out = (layer.weight.detach().numpy() for layer in (net.input, net.hidden.recurrent, net.readout))
    a, rho, kappa = (float(decay[0]) for decay in (net.hidden.beta, net.adapt_decay, net.output.beta))
    beta, size, first = net.adapt_strength.numpy(), params.neurons, STEPS - round(params.target_window * STEPS)
    gradient = np.zeros((size, CHANNELS + size))
    for inputs, label in zip(x, y, strict=True):
        v, b, z, out = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(CLASSES)
        pbar, eps = np.zeros(CHANNELS + size), np.zeros((size, CHANNELS + size))
        ebar = np.zeros_like(eps)
        for t in range(STEPS):
            pre = np.concatenate([inputs[t], z])
            pbar = a * pbar + pre
            v = a * v + w_in @ inputs[t] + w_rec @ z - params.threshold * z
            b = rho * b + z
            gap = v - params.threshold - beta * b
            z = (gap > 0).astype(float)
            psi = params.dampening / params.threshold * np.maximum(0, 1 - np.abs(gap) / params.threshold)
            e = psi[:, None] * (pbar[None] - beta[:, None] * eps)
            eps = rho * eps + e
            ebar = kappa * ebar + e
            out = kappa * out + w_out @ z
            if t >= first:
                chances = np.exp(out) / np.exp(out).sum()
                chances[label] -= 1
                gradient += (chances @ w_out)[:, None] * ebar / (STEPS - first) / len(x)
    np.fill_diagonal(gradient[:, CHANNELS:], 0)
    return gradient[:, :CHANNELS], gradient[:, CHANNELS:]


@pytest.mark.parametrize("alif_fraction", [0.0, 0.5])
def test_gradients_equal_the_written_out_eligibility_traces(alif_fraction):
    net, x, y = build(alif_fraction=alif_fraction, tau_adapt=15, adapt_strength=0.3)
    _, (w_in, w_rec, *_), _ = learned(net, x, y)
    expected = [torch.from_numpy(gradient) for gradient in written_out(net, x, y)]
    assert difference([w_in, w_rec], expected) < 1e-12


def test_two_neurons_worked_by_hand():
    """Two LIF neurons, decays 1/2, threshold 1, dampening 1; one input spike at t = 0; the loss counts at t = 2.

    W_in = (1.2, 0.6), 0.8 from neuron 0 to 1 and 0.4 back, W_out = identity.
        t   v              z       psi        y
        0   1.2   0.6      1  0    0.8  0.6   1     0
        1  -0.4   1.1      0  1    0    0.9   0.5   1
        2   0.2  -0.45     0  0    0.2  0     0.25  0.5
    Target 1, so L = (p, -p) with p = 1 / (1 + exp(0.25)). From the last step on, D = L, L/2, L/4 and
        S[2] = (0.2 p, 0)
        S[1] = (0, -0.45 p) + S[2]/2 = (0.1 p, -0.45 p)
        S[0] = (0.2 p, -0.15 p) + S[1]/2 = (0.25 p, -0.375 p)
    dW_in = S[0];  dW_rec: S[1] of 1 for the spike of 0, S[2] of 0 for the spike of 1;  dW_out: L/4 and L/2.
    """
    params = EpropParams(neurons=2, dampening=1, target_window=1 / 3, rate_cost=0)
    net = RSNN(params, 1, 2).double()
    for decay in (net.hidden.beta, net.output.beta):
        decay.fill_(0.5)
    net.input.weight.data = torch.tensor([[1.2], [0.6]], dtype=torch.float64)
    net.hidden.recurrent.weight.data = torch.tensor([[0, 0.4], [0.8, 0]], dtype=torch.float64)
    net.readout.weight.data = torch.eye(2, dtype=torch.float64)
    loss, (w_in, w_rec, w_out, bias_out), trace = learned(net, np.array([[[1], [0], [0]]], np.uint8), np.array([1]))
    p = 1 / (1 + math.exp(0.25))
    assert trace.spikes().tolist() == [[[1, 0], [0, 1], [0, 0]]]
    assert loss == pytest.approx(-math.log(1 - p))
    np.testing.assert_allclose(trace.outputs[0], [[1, 0], [0.5, 1], [0.25, 0.5]])
    np.testing.assert_allclose(w_in, [[0.25 * p], [-0.375 * p]])
    np.testing.assert_allclose(w_rec, [[0, 0.2 * p], [-0.45 * p, 0]], atol=1e-17)
    np.testing.assert_allclose(w_out, [[p / 4, p / 2], [-p / 4, -p / 2]])
    np.testing.assert_allclose(bias_out, [1.75 * p, -1.75 * p])


def test_readout_gradients_equal_finite_differences():
    net, x, y = build(neurons=6, alif_fraction=0.5)
    _, (*_, w_out, bias_out), _ = learned(net, x, y)
    for weights_, gradient in ((net.readout.weight.data, w_out), (net.readout.bias.data, bias_out)):
        for index in np.ndindex(*weights_.shape):
            start, losses = float(weights_[index]), []
            for shift in (1e-5, -1e-5):
                weights_[index] = start + shift
                losses.append(eprop.learn(net, x, y)[0])
            weights_[index] = start
            assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(float(gradient[index]), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("reset", "reset_delay"), RESETS)
def test_dense_torch_equals_the_kernels(reset, reset_delay):
    net, x, y = build(reset=reset, reset_delay=reset_delay, alif_fraction=0.5, rate_cost=3.0, tau_adapt=10)
    errors, excess = torch.randn(len(x), STEPS, CLASSES).double(), torch.randn(20).double()
    traces = [eprop.run(net, x, learning=True, dense=dense) for dense in (True, False)]
    dense, sparse = (eprop.gradients(net, x, trace, errors, excess) for trace in traces)
    assert (traces[0].spikes() == traces[1].spikes()).all()
    assert (traces[0].counts == traces[1].counts).all()
    torch.testing.assert_close(traces[0].outputs, traces[1].outputs)
    for weight in dense:
        assert difference([sparse[weight]], [dense[weight]]) < 1e-12


@pytest.mark.parametrize(("reset", "reset_delay"), RESETS)
def test_bptt_equals_autograd_through_stock_rleaky(reset, reset_delay):
    net, x, y = build(rule="bptt", reset=reset, reset_delay=reset_delay)
    _, found, trace = learned(net, x, y)
    stock = snn.RLeaky(
        beta=float(net.hidden.beta[0]), linear_features=20, reset_mechanism=reset, reset_delay=reset_delay,
        spike_grad=lambda distance: Triangle.apply(distance, 1.0, net.params.dampening),
    ).double()  # fmt: skip
    stock.recurrent = net.hidden.recurrent
    spikes = potential = torch.zeros(len(x), 20).double()
    output, loss, count = torch.zeros(len(x), CLASSES).double(), 0, 0
    for t in range(STEPS):
        spikes, potential = stock(net.input(torch.as_tensor(x[:, t]).double()), spikes, potential)
        output, count = net.output.beta * output + net.readout(spikes), count + spikes.sum(1)
        if t >= STEPS // 2:
            loss = loss + torch.nn.functional.cross_entropy(output, torch.as_tensor(y)) / (STEPS // 2)
    expected = list(torch.autograd.grad(loss, weights(net)))
    expected[1].fill_diagonal_(0)
    assert (trace.counts.sum(1) == count.detach()).all()
    assert difference(found, expected) < 1e-12


def test_bptt_equals_autograd_without_detaches_in_adaptive_nets():
    net, x, y = build(rule="bptt", alif_fraction=0.5, tau_adapt=15, adapt_strength=0.3, reset="zero", reset_delay=False)
    _, found, _ = learned(net, x, y)
    assert difference(found, by_autograd(net, x, y, local=False)[1]) < 1e-12


def test_random_feedback_that_equals_the_readout_is_symmetric():
    net, x, y = build(feedback="random")
    symmetric, _, _ = build(feedback="symmetric")
    _, (before, *_), _ = learned(net, x, y)
    net.feedback.data.copy_(net.readout.weight.data)
    _, found, _ = learned(net, x, y)
    _, expected, _ = learned(symmetric, x, y)
    assert difference(found, expected) == 0
    assert difference([before], expected[:1]) > 0.1


def angle(net):
    """Angle between feedback and readout weights [degrees]."""
    cosine = torch.nn.functional.cosine_similarity(net.feedback.flatten(), net.readout.weight.flatten(), dim=0)
    return math.degrees(math.acos(cosine.item()))


@pytest.mark.parametrize(("feedback", "falls"), [("adaptive", True), ("random", False)])
def test_adaptive_feedback_aligns_with_the_readout(feedback, falls):
    net, x, y = build(feedback=feedback)
    optimizer = torch.optim.Adam([weight for weight in net.parameters() if weight.requires_grad], 0.005)
    angles = [angle(net)]
    for _ in range(200):
        eprop.learn(net, x, y)
        optimizer.step()
        eprop.decay_feedback(net)
        angles.append(angle(net))
    assert angles[0] > 60
    assert (angles[-1] < 30 and angles[100] < angles[0]) == falls


@pytest.mark.parametrize(("rate_target", "sign"), [(0, -1), (500, 1)])
def test_rate_regularisation_moves_the_rate_to_its_target(rate_target, sign):
    net, x, y = build(feedback="random", rate_target=rate_target, rate_cost=100.0)
    net.feedback.data.zero_()  # no learning signal but the rates
    _, trace = eprop.learn(net, x, y)
    for weight in (net.input.weight, net.hidden.recurrent.weight):
        weight.data -= 0.05 * weight.grad
    after = eprop.run(net, x)
    assert (after.counts.sum() - trace.counts.sum()) * sign > 10
