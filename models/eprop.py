"""e-prop (Bellec et al. 2020, Nat. Commun. 11:3625) for `models.rsnn.RSNN`, and surrogate gradients through time, BPTT.

    loss, trace = learn(net, x, y)  # gradients are in net's parameters, for any torch optimizer
    trace = run(net, x)             # inference

The eligibility traces of eq. 22-25 are never formed. As the sequence is finished when learning starts, the sums over
time are exchanged: the learning signals run backward through the readout's, the adaptation's and the membrane's filter,
one vector per sample, and meet the presynaptic activity in one product per weight matrix. From the last step on:
    D = kappa D + L[t],  H = psi[t] (D + r + G),  S = H + a S,  G = rho G - adapt_strength H,  dE/dW += S pre[t]
with L[t] = B (softmax y[t] - target) (eq. 4), r of the rate regularisation, pre[t] = x[t] or z[t-1]; a reset to zero
cuts a. This equals eq. 3 exactly: memory B T N, not B T N^2.

On the CPU `models.kernels` does the work, elsewhere (or with `dense`) torch. Letters in shapes: B samples, T steps,
C input channels, N neurons, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from models import kernels
from models.rsnn import RSNN, slope


@dataclass
class Trace:
    """What a forward pass leaves: the readout, spike counts, and what the backward pass of its kind needs.

    That is the kernels' Activity, or spikes and slopes, each (B, T, N), or nothing after BPTT.
    """

    outputs: torch.Tensor  # (B, T, K)
    counts: torch.Tensor  # (B, N) spikes of each neuron
    activity: kernels.Activity | tuple[torch.Tensor, torch.Tensor] | None

    def spikes(self) -> np.ndarray:
        """Return the spikes (B, T, N) as uint8."""
        if isinstance(self.activity, kernels.Activity):
            return kernels.spikes(self.activity)
        return self.activity[0].cpu().numpy().astype(np.uint8)


def run(net: RSNN, x: np.ndarray, learning: bool = False, dense: bool = False) -> Trace:
    """Simulate x (B, T, C) uint8 {0, 1} without autograd; `learning` keeps what `gradients` needs."""
    if dense or net.readout.weight.device.type != "cpu":
        with torch.no_grad():
            outputs, spikes, distances = net.simulate(_tensor(net, x))
            slopes = slope(distances, net.hidden.threshold, net.params.dampening)
        return Trace(outputs, spikes.sum(1), (spikes, slopes))
    activity = kernels.run(x, _constants(net), *_resets(net), learning)
    return Trace(torch.from_numpy(activity.outputs), torch.from_numpy(activity.counts), activity)


def window_start(net: RSNN, steps: int) -> int:
    """Return the first of `steps` steps that counts for the loss and the prediction: at least the last one does."""
    return steps - max(1, round(net.params.target_window * steps))


def predict(net: RSNN, outputs: torch.Tensor) -> torch.Tensor:
    """Return the class (B,) with the largest mean readout in the target window."""
    return outputs[:, window_start(net, outputs.shape[1]) :].mean(1).argmax(1)


def learn(net: RSNN, x: np.ndarray, y: np.ndarray) -> tuple[float, Trace]:
    """Set the gradients of the loss on a batch x (B, T, C) uint8 {0, 1}, y (B,) by the net's rule; return loss, trace.

    The loss is the cross-entropy of softmax(y[t]), averaged over the target window and the batch, plus rate_cost
    sum_j (f_j - rate_target)^2 where f_j is neuron j's rate over the batch in spikes per ms.
    """
    labels = torch.as_tensor(y, device=net.readout.weight.device)
    net.zero_grad(set_to_none=True)
    if net.params.rule == "bptt":
        return _learn_bptt(net, x, labels)
    trace = run(net, x, learning=True)
    loss, errors = _errors(net, trace.outputs, labels)
    excess = _excess_rates(net, trace.counts.sum(0), x)
    for weights, gradient in gradients(net, x, trace, errors, excess).items():
        weights.grad = gradient
    return loss + net.params.rate_cost * float((excess**2).sum()), trace


def gradients(
    net: RSNN, x: np.ndarray, trace: Trace, errors: torch.Tensor, excess: torch.Tensor
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Return the e-prop gradient of each weight for errors (B, T, K) = dE/dy and excess rates (N,) [spikes per ms]."""
    push = 2 * net.params.rate_cost * excess / (x.shape[0] * x.shape[1] * net.step_ms)  # dE/dz, the same at every step
    feedback = net.readout.weight if net.feedback is None else net.feedback
    backward = _backward_sparse if isinstance(trace.activity, kernels.Activity) else _backward_dense
    w_in, w_rec, bias, w_out, bias_out = backward(net, x, trace.activity, errors, feedback.detach(), push)
    w_rec.fill_diagonal_(0)
    result = {
        net.input.weight: w_in,
        net.hidden.recurrent.weight: w_rec,
        net.readout.weight: w_out,
        net.readout.bias: bias_out,
    }
    if net.params.bias:
        result[net.hidden.recurrent.bias] = bias
    if net.params.feedback == "adaptive":  # Kolen and Pollack: the feedback weights learn as the readout's do
        result[net.feedback] = w_out.clone()
    return result


@torch.no_grad()
def decay_feedback(net: RSNN) -> None:
    """Shrink readout and feedback weights alike after an update, so that what they do not share dies out."""
    if net.params.rule == "eprop" and net.params.feedback == "adaptive":
        for weights in (net.readout.weight, net.feedback):
            weights.mul_(1 - net.params.feedback_decay)


def _learn_bptt(net: RSNN, x: np.ndarray, labels: torch.Tensor) -> tuple[float, Trace]:
    outputs, spikes, _ = net.simulate(_tensor(net, x))
    start = window_start(net, outputs.shape[1])
    windows = outputs[:, start:]  # (B, T', K)
    loss = F.cross_entropy(windows.flatten(0, 1), labels.repeat_interleave(windows.shape[1]))
    loss = loss + net.params.rate_cost * (_excess_rates(net, spikes.sum((0, 1)), x) ** 2).sum()
    loss.backward()
    net.hidden.recurrent.weight.grad.fill_diagonal_(0)
    return float(loss.detach()), Trace(outputs.detach(), spikes.detach().sum(1), None)


def _errors(net: RSNN, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return the cross-entropy in the target window and its derivative by the readout (B, T, K), 0 before it."""
    start = window_start(net, outputs.shape[1])
    logs = torch.log_softmax(outputs[:, start:], 2)  # (B, T', K)
    chosen = labels[:, None, None].expand(-1, logs.shape[1], 1)
    errors = torch.zeros_like(outputs)
    errors[:, start:] = logs.exp().scatter_add_(2, chosen, -torch.ones_like(chosen, dtype=logs.dtype))
    errors /= logs.shape[0] * logs.shape[1]
    return float(-logs.gather(2, chosen).mean()), errors


def _excess_rates(net: RSNN, counts: torch.Tensor, x: np.ndarray) -> torch.Tensor:
    """Return f_j - rate_target (N,) in spikes per ms, for spike counts (N,) over the batch."""
    rates = counts.to(net.readout.weight.dtype) / (x.shape[0] * x.shape[1] * net.step_ms)
    return rates - net.params.rate_target / 1000


def _tensor(net: RSNN, x: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(x, device=net.readout.weight.device)


def _resets(net: RSNN) -> tuple[bool, bool]:
    return net.params.reset == "zero", net.params.reset_delay


def _constants(net: RSNN) -> kernels.Constants:
    cell = net.hidden
    tensors = (
        net.input.weight.t(), cell.recurrent.weight.t(), cell.recurrent.bias, net.readout.weight.t(), net.readout.bias,
        cell.beta, cell.threshold, net.adapt_decay, net.adapt_strength, net.output.beta,
        net.params.dampening / cell.threshold,
    )  # fmt: skip
    return kernels.Constants(*(tensor.detach().contiguous().numpy() for tensor in tensors))


def _backward_sparse(net, x, activity, errors, feedback, push) -> tuple[torch.Tensor, ...]:
    found = kernels.gradients(
        x, _constants(net), *_resets(net), activity, errors.numpy(), feedback.contiguous().numpy(), push.numpy()
    )
    w_in, w_rec, bias, w_out, bias_out = (torch.from_numpy(gradient) for gradient in found)
    return w_in.t(), w_rec.t(), bias[0], w_out.t(), bias_out[0]


def _backward_dense(net, x, activity, errors, feedback, push) -> tuple[torch.Tensor, ...]:
    spikes, slopes = activity
    before = torch.cat([torch.zeros_like(spikes[:, :1]), spikes[:, :-1]], 1)  # z[t-1], (B, T, N)
    errors = _filter_backward(errors, net.output.beta)
    signals = errors @ feedback + push  # D + r, (B, T, N)
    credits = _filter_credits(net, signals * slopes, slopes, spikes)  # S, (B, T, N)
    if _resets(net) == (True, True):  # the step after a spike, the input too is lost
        credits = credits * (1 - before)
    inputs = _tensor(net, x).to(credits.dtype)
    flat_credits, flat_errors = credits.flatten(0, 1), errors.flatten(0, 1)
    return (
        flat_credits.t() @ inputs.flatten(0, 1),
        flat_credits.t() @ before.flatten(0, 1),
        flat_credits.sum(0),
        flat_errors.t() @ spikes.flatten(0, 1),
        flat_errors.sum(0),
    )


def _filter_backward(values: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:  # (B, T, K)
    filtered, state = [], torch.zeros_like(values[:, 0])
    for value in reversed(values.unbind(1)):
        state = decay * state + value
        filtered.append(state)
    return torch.stack(filtered[::-1], 1)


def _filter_credits(net: RSNN, shares: torch.Tensor, slopes: torch.Tensor, spikes: torch.Tensor) -> torch.Tensor:
    """Return S (B, T, N) from shares psi (D + r) (B, T, N): the recursions of the adaptation and the membrane."""
    passed = net.hidden.beta * (1 - spikes) if net.params.reset == "zero" else net.hidden.beta.expand_as(spikes)
    credit = to_adapt = torch.zeros_like(shares[:, 0])
    credits = []
    for t in reversed(range(shares.shape[1])):
        share = shares[:, t] + slopes[:, t] * to_adapt  # H
        credit = share + passed[:, t] * credit
        to_adapt = net.adapt_decay * to_adapt - net.adapt_strength * share
        credits.append(credit)
    return torch.stack(credits[::-1], 1)
