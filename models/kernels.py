"""The recurrent net and its e-prop gradients on a CPU, event by event and sample by sample (numba).

Few neurons fire in a step, so adding the weight rows of those that do costs less than a matrix product. The kernels
work in the precision of their arrays. `models.eprop` has the same in torch, dense, for other devices and as a check.
Compiled code is cached beside this file; several processes may start at once.

Letters in shapes: B samples, T steps, C input channels, N neurons, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.kernel_cache import njit

SAMPLES_PER_PART = 4  # gradients are summed over so many samples first: a long float32 sum loses digits
inlined = njit(inline="always")  # a call per loop would cost more than the loop


class Constants(NamedTuple):
    """What the kernels read of a net: weights with the presynaptic side first, and constants per neuron."""

    w_in: np.ndarray  # (C, N)
    w_rec: np.ndarray  # (N, N)
    bias: np.ndarray  # (N,)
    w_out: np.ndarray  # (N, K)
    bias_out: np.ndarray  # (K,)
    decay: np.ndarray  # (N,) of the membrane, per step
    threshold: np.ndarray  # (N,)
    adapt_decay: np.ndarray  # (N,) per step
    adapt_strength: np.ndarray  # (N,)
    decay_out: np.ndarray  # (K,) of the readout, per step, K times the same
    surrogate: np.ndarray  # (N,) largest surrogate derivative: dampening / threshold


class Activity(NamedTuple):
    """What a forward pass leaves behind. Sample b's spikes at step t are neurons[b, starts[b, t]:starts[b, t + 1]]."""

    neurons: np.ndarray  # (B, T N + 1) uint16, touched only as far as there are spikes
    starts: np.ndarray  # (B, T + 1) int32
    outputs: np.ndarray  # (B, T, K) readout
    slopes: np.ndarray  # (B, T, N) surrogate derivative; (1, 1, N) where it is not kept
    counts: np.ndarray  # (B, N) int32 spikes of each neuron


class Gradients(NamedTuple):
    """Gradients of the weights, in the layout of Constants; biases are a row."""

    w_in: np.ndarray  # (C, N)
    w_rec: np.ndarray  # (N, N)
    bias: np.ndarray  # (1, N)
    w_out: np.ndarray  # (N, K)
    bias_out: np.ndarray  # (1, K)


def run(x: np.ndarray, net: Constants, zero: bool, delay: bool, keep_slopes: bool) -> Activity:
    """Simulate x (B, T, C) uint8. `zero`: reset to zero, else by subtraction; `delay`: one step late."""
    (samples, steps, _), (size, classes) = x.shape, net.w_out.shape
    activity = Activity(
        np.empty((samples, steps * size + 1), np.uint16),
        np.zeros((samples, steps + 1), np.int32),
        np.empty((samples, steps, classes), net.w_out.dtype),
        np.empty((samples, steps, size) if keep_slopes else (1, 1, size), net.w_out.dtype),
        np.zeros((samples, size), np.int32),
    )
    _forward(x, net, bool(net.adapt_strength.any()), zero, delay, keep_slopes, activity)
    return activity


def gradients(
    x: np.ndarray, net: Constants, zero: bool, delay: bool, activity: Activity,
    errors: np.ndarray, feedback: np.ndarray, rate_push: np.ndarray,
) -> Gradients:  # fmt: skip
    """e-prop gradients from errors (B, T, K) = dE/dy, feedback (K, N) and the rate term's rate_push (N,) = dE/dz."""
    total, part = (Gradients(*(np.zeros_like(np.atleast_2d(each)) for each in net[:5])) for _ in range(2))
    adaptive = bool(net.adapt_strength.any())
    _backward(x, net, adaptive, zero, delay, activity, errors, feedback, rate_push, part, total)
    return total


def spikes(activity: Activity) -> np.ndarray:
    """Return the spikes as uint8 (B, T, N)."""
    samples, size = activity.counts.shape
    result = np.zeros((samples, activity.starts.shape[1] - 1, size), np.uint8)
    for neurons, starts, steps in zip(activity.neurons, activity.starts, result, strict=True):
        steps[np.repeat(np.arange(len(steps)), np.diff(starts)), neurons[: starts[-1]]] = 1
    return result


@njit(cache=True)
def _forward(x, net, adaptive, zero, delay, keep_slopes, activity):
    """The equations are those of `models.rsnn.RSNN`."""
    samples, steps, channels = x.shape
    potential, held = np.empty_like(net.decay), np.empty_like(net.decay)
    raised, barrier, gap = np.empty_like(net.decay), np.empty_like(net.decay), np.empty_like(net.decay)
    output = np.empty_like(net.decay_out)
    falloff = net.surrogate / net.threshold
    for b in range(samples):
        for state in (potential, held, raised, output):
            _clear(state)
        _copy(barrier, net.threshold)
        neurons, starts = activity.neurons[b], activity.starts[b]
        fired = neurons[:0]
        for t in range(steps):
            _scale_and_add(potential, net.decay, net.bias)
            for c in range(channels):
                if x[b, t, c]:
                    _add_row(potential, net.w_in, c)
            for i in fired:
                _add_row(potential, net.w_rec, i)
            if delay:
                _reset(potential, fired, net.threshold, zero)
            if adaptive:
                _adapt(raised, fired, net.adapt_decay, net.adapt_strength)
            if adaptive or not delay:
                _raise(barrier, net.threshold, raised, held)
            _subtract(gap, potential, barrier)
            starts[t + 1] = _fire(gap, neurons, starts[t])
            fired = neurons[starts[t] : starts[t + 1]]
            if keep_slopes:
                _surrogate(activity.slopes[b, t], gap, net.surrogate, falloff)
            if not delay:
                _reset(potential, fired, net.threshold, zero)
                _hold(held, potential, net.threshold, raised)
            _read_out(output, activity.outputs[b, t], activity.counts[b], fired, net)


@njit(cache=True)
def _backward(x, net, adaptive, zero, delay, activity, errors, feedback, rate_push, part, total):
    """The recursions are those of `models.eprop`: D is signal, S credit, G to_adapt, r rate_push."""
    samples, steps, channels = x.shape
    classes = errors.shape[2]
    signal, to_adapt, credit = np.empty_like(net.decay), np.empty_like(net.decay), np.empty_like(net.decay)
    error = np.empty_like(net.decay_out)
    decay_signal = np.full_like(net.decay, net.decay_out[0])
    for b in range(samples):
        for state in (signal, to_adapt, credit, error):
            _clear(state)
        neurons, starts = activity.neurons[b], activity.starts[b]
        for t in range(steps - 1, -1, -1):
            fired = neurons[starts[t] : starts[t + 1]]
            fired_before = neurons[starts[max(t - 1, 0)] : starts[t]]
            _scale_and_add(error, net.decay_out, errors[b, t])
            for i in fired:
                _add_to_row(part.w_out, i, error)
            _add_to_row(part.bias_out, 0, error)
            _scale(signal, decay_signal)
            for k in range(classes):
                if errors[b, t, k] != 0:
                    _add_scaled_row(signal, feedback, k, errors[b, t, k])
            if adaptive:
                _assign_credit_adaptive(credit, activity.slopes[b, t], signal, rate_push, to_adapt, net)
            else:
                _assign_credit(credit, activity.slopes[b, t], signal, rate_push, net.decay)
            if zero and delay:  # the step after a spike, the input too is lost
                _clear_at(credit, fired_before)
            for c in range(channels):
                if x[b, t, c]:
                    _add_to_row(part.w_in, c, credit)
            for i in fired_before:
                _add_to_row(part.w_rec, i, credit)
            _add_to_row(part.bias, 0, credit)
            if zero and not delay:
                _clear_at(credit, fired_before)
        if b % SAMPLES_PER_PART == SAMPLES_PER_PART - 1 or b == samples - 1:
            for i in range(5):
                _move(part[i], total[i])


@inlined
def _scale_and_add(target, factor, term):
    for j in range(target.size):
        target[j] = target[j] * factor[j] + term[j]


@inlined
def _scale(target, factor):
    for j in range(target.size):
        target[j] *= factor[j]


@inlined
def _add_scaled_row(target, rows, i, factor):
    for j in range(target.size):
        target[j] += rows[i, j] * factor


@inlined
def _add_row(target, rows, i):
    for j in range(target.size):
        target[j] += rows[i, j]


@inlined
def _add_to_row(rows, i, term):
    for j in range(term.size):
        rows[i, j] += term[j]


@njit(cache=True)
def _move(part, total):
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            total[i, j] += part[i, j]
            part[i, j] = 0


@inlined
def _clear(target):
    for j in range(target.size):
        target[j] = 0


@inlined
def _copy(target, source):
    for j in range(target.size):
        target[j] = source[j]


@inlined
def _clear_at(target, indices):
    for i in indices:
        target[i] = 0


@inlined
def _reset(potential, fired, threshold, zero):
    for i in fired:
        potential[i] = 0 if zero else potential[i] - threshold[i]


@inlined
def _adapt(raised, fired, decay, strength):
    """raised = adapt_strength * b with b[t] = rho b[t-1] + z[t-1]: what is added to the threshold."""
    _scale(raised, decay)
    for i in fired:
        raised[i] += strength[i]


@inlined
def _raise(barrier, threshold, raised, held):
    for j in range(barrier.size):
        barrier[j] = threshold[j] + raised[j] + held[j]


@inlined
def _subtract(gap, potential, barrier):
    for j in range(gap.size):
        gap[j] = potential[j] - barrier[j]


@inlined
def _fire(gap, neurons, count):
    """Append the neurons above threshold; without a branch, which would often be predicted wrongly."""
    count, none = np.uint64(count), gap.dtype.type(0)
    for j in range(gap.size):
        neurons[count] = np.uint16(j)
        if gap[j] > none:
            count += np.uint64(1)
    return count


@inlined
def _surrogate(slopes, gap, height, falloff):
    """psi = dampening / threshold * max(0, 1 - |v - A| / threshold)."""
    none = gap.dtype.type(0)
    for j in range(gap.size):
        slopes[j] = max(height[j] - abs(gap[j]) * falloff[j], none)


@inlined
def _hold(held, potential, threshold, raised):
    """snnTorch without delay: still above threshold after the subtraction, it has to clear one threshold more."""
    for j in range(held.size):
        held[j] = threshold[j] if potential[j] > threshold[j] + raised[j] else 0


@inlined
def _read_out(output, target, counts, fired, net):
    _scale_and_add(output, net.decay_out, net.bias_out)
    for i in fired:
        counts[i] += 1
        _add_row(output, net.w_out, i)
    _copy(target, output)


@inlined
def _assign_credit(credit, slopes, signal, rate_push, decay):
    for j in range(credit.size):
        credit[j] = slopes[j] * (signal[j] + rate_push[j]) + decay[j] * credit[j]


@inlined
def _assign_credit_adaptive(credit, slopes, signal, rate_push, to_adapt, net):
    for j in range(credit.size):
        share = slopes[j] * (signal[j] + rate_push[j] + to_adapt[j])
        credit[j] = share + net.decay[j] * credit[j]
        to_adapt[j] = net.adapt_decay[j] * to_adapt[j] - net.adapt_strength[j] * share
