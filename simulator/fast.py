"""Which nets the fast kernels know, and their state on the way in and out of them."""

from __future__ import annotations

import numpy as np

from simulator import mushroom_kernel, shallow_kernel
from simulator.drive_kernel import pack_masks
from simulator.encoders import pixel_thresholds
from simulator.neurons import LIF, Layer
from simulator.plastic_kernel import constants
from simulator.run import Images, Record, has_monitors
from simulator.streamnet import StreamNet
from simulator.synapses import OneToOne, Plastic, Sparse, Static, signed

SHALLOW = {"o": ((Plastic,), ("x", "m"))}
MUSHROOM_BODY = {
    "glom": ((OneToOne, Static), ("x", "lat")),
    "lat": ((Static,), ("x",)),
    "inh": ((Static,), ("glom",)),
    "kc": ((Sparse, Static), ("glom", "inh")),
    "o": ((Plastic,), ("kc", "m")),
}
GRAPHS = {"shallow": SHALLOW, "mushroom_body": MUSHROOM_BODY}  # layers in the order of the kernels' counters
SIGNS = {"glom": (1, -1), "lat": (1,), "inh": (1,), "kc": (1, -1), "o": (1,)}
BLOCK = 16  # samples encoded at a time


def architecture(net: StreamNet) -> str:
    """Return "shallow", "mushroom_body", or an empty text for any other graph."""
    if type(net) is not StreamNet:  # it may step otherwise
        return ""
    for name, expected in GRAPHS.items():
        if net.inputs == ("x", "m") and _shape(net) == expected and net.exposed == [("o", 0)]:
            return name
    return ""


def why_not_fast(net: StreamNet) -> str:
    """Return why no fast kernel can show images to a net, or an empty text where one can."""
    name = architecture(net)
    if not name:
        return "its graph is neither that of shallow nor of mushroom_body"
    if has_monitors(net):
        return "its monitors record every step"
    for layer_name, layer in net.elements.items():
        if any(synapse.filter.delay for synapse in layer.synapses):
            return f"a synapse of {layer_name!r} has a delay"
        if tuple(signed(synapse.sign) for synapse in layer.synapses) != SIGNS[layer_name]:
            return f"a synapse of {layer_name!r} has another sign"
    return _why_not_mushroom_body(net) if name == "mushroom_body" else ""


def same_architecture(first: StreamNet, other: StreamNet) -> str:
    """Return why two nets cannot share a call of a kernel, or an empty text where they can."""
    if architecture(first) != architecture(other):
        return f"it is {architecture(other)}, the first is {architecture(first)}"
    own, others = ({name: layer.neuron.n for name, layer in net.elements.items()} for net in (other, first))
    fits = own == others and other.input_sizes == first.input_sizes
    return "" if fits else f"its sizes are {other.input_sizes} {own}, those of the first {first.input_sizes} {others}"


def run_fast(nets: list[StreamNet], samples: Images, learn: bool, precision: str, kenyon: bool = False) -> list[Record]:
    """Show images to nets of one architecture that `why_not_fast` has no objection to."""
    name, dtype, total = architecture(nets[0]), np.dtype(precision), len(samples.images)
    counts = np.zeros((len(nets), total, nets[0].output_sizes[0]), np.int64)
    counters = np.zeros((len(nets), len(nets[0].elements), 2), np.int64)
    cells = nets[0].elements["kc"].neuron.n if kenyon and name == "mushroom_body" else 0
    seen = np.zeros((len(nets), total if cells else 1, cells), np.uint8)
    state = _plastic_state(nets, dtype)
    shown, options = _shown(samples), (int(samples.steps), bool(learn), bool(samples.reset))
    records = np.concatenate([constants(net.elements["o"], dtype) for net in nets])
    if name == "shallow":
        shallow_kernel.run_shallow(records, shown, options, state, (counts, counters), BLOCK)
    else:
        state = (*state, *_hidden_state(nets, dtype))
        tables = (*_hidden_tables(nets, dtype), records)
        mushroom_kernel.run_mushroom_body(tables, shown, options, state, (counts, counters, seen), BLOCK)
    for c, net in enumerate(nets):
        _write_back(net, [array[c] for array in state], learn)
        for layer, counted in zip(GRAPHS[name], counters[c], strict=True):
            net.elements[layer].counters += counted
        net.after_run(total * samples.steps)
    totals = counters.sum(axis=1).tolist()
    return [Record(counts[c], *totals[c], name, kenyon=seen[c] if cells else None) for c in range(len(nets))]


def _shown(samples: Images) -> tuple:
    """Return what the kernels take of the samples, always of the same types: others would be compiled anew."""
    images = np.require(samples.images, requirements=("C", "W"))
    labels = np.full(len(images), -1) if samples.labels is None else np.array(samples.labels, np.int64)
    return images, labels, int(samples.first), pixel_thresholds(samples.scale), np.uint64(samples.seed)


def _hidden_tables(nets: list[StreamNet], dtype) -> tuple[np.ndarray, ...]:
    """Return (constants of the hidden layers, connections as bits, fan-out of each glomerulus) of all nets."""
    driven = [net.elements["kc"].synapses[0] for net in nets]
    hidden = np.concatenate([_hidden_constants(net, dtype) for net in nets])
    return hidden, np.stack([_packed(synapse) for synapse in driven]), np.stack([synapse.fan_out for synapse in driven])


def _shape(net: StreamNet) -> dict:
    """Describe a graph by its layers: {name: (types of its synapses, sources)}; a rule without m counts as with it."""
    described = {}
    for name, element in net.elements.items():
        if type(element) is not Layer or type(element.neuron) is not LIF:
            return {}
        kinds, sources = tuple(type(synapse) for synapse in element.synapses), tuple(net.sources[name])
        unmodulated = kinds == (Plastic,) and not element.synapses[0].rule.modulated
        described[name] = kinds, (*sources, "m") if unmodulated else sources
    return described


def _packed(synapse: Sparse) -> np.ndarray:
    """Return the synapse's connections as bits, which are made once."""
    if not hasattr(synapse, "packed"):
        synapse.packed = pack_masks(synapse.mask)
    return synapse.packed


def _why_not_mushroom_body(net: StreamNet) -> str:
    for name in mushroom_kernel.HIDDEN:
        layer = net.elements[name]
        if name in ("lat", "inh") and layer.neuron.n > 1:
            return f"{name!r} has {layer.neuron.n} neurons"
        if layer.neuron.refractory:
            return f"the neurons of {name!r} are refractory"
        if any(synapse.filter.keep for synapse in layer.synapses):
            return f"a synapse of {name!r} has a low-pass"
        if any(np.ptp(synapse.weights) for synapse in layer.synapses if not isinstance(synapse, Sparse)):
            return f"the weights of {name!r} differ"
    most = net.elements["kc"].synapses[0].mask.sum(axis=0).max()
    return f"a Kenyon cell has {most} inputs, more than 255" if most > 255 else ""


def _plastic_state(nets: list[StreamNet], dtype) -> tuple[np.ndarray, ...]:
    """Return (weights (C, K, E), f (C, E), t_pre (C, E), small (C, 5, K)) of all nets."""
    plastics = [net.elements["o"].synapses[0] for net in nets]
    weights = np.stack([plastic.weights for plastic in plastics]).astype(dtype)
    small = np.stack([np.stack(_small(net)) for net in nets]).astype(dtype)
    f = np.stack([plastic.filter.value for plastic in plastics]).astype(dtype)
    return weights, f, np.stack([plastic.trace_pre for plastic in plastics]).astype(dtype), small


def _small(net: StreamNet) -> list[np.ndarray]:
    layer, plastic = net.elements["o"], net.elements["o"].synapses[0]
    return [
        layer.neuron.v, layer.neuron.spikes, plastic.trace_post, plastic.filter_mod.value, plastic.trace_mod
    ]  # fmt: skip


def _hidden_state(nets: list[StreamNet], dtype) -> tuple[np.ndarray, ...]:
    """Return (glom, single, kenyon, spiked) of all nets."""
    neurons = [{name: net.elements[name].neuron for name in mushroom_kernel.HIDDEN} for net in nets]
    glom = np.stack([np.stack([n["glom"].v, n["glom"].spikes]) for n in neurons]).astype(dtype)
    singles = [[n["lat"].v[0], n["lat"].spikes[0], n["inh"].v[0], n["inh"].spikes[0]] for n in neurons]
    kenyon = np.stack([n["kc"].v for n in neurons]).astype(dtype)
    cells = kenyon.shape[1]
    spiked = np.zeros((len(nets), -(-cells // 8) * 8), np.uint8)  # whole words
    spiked[:, :cells] = np.stack([n["kc"].spikes for n in neurons])
    return glom, np.array(singles, dtype), kenyon, spiked


def _hidden_constants(net: StreamNet, dtype) -> np.ndarray:
    table = np.zeros(1, mushroom_kernel.hidden_dtype(dtype))
    layers = net.elements
    for name in mushroom_kernel.HIDDEN:
        neuron = layers[name].neuron
        table[f"{name}_decay"], table[f"{name}_gain"] = neuron.decay, 1 - neuron.decay
        table[f"{name}_threshold"] = neuron.threshold
    (to_glom, lat_glom), (to_kc, inh_kc) = layers["glom"].synapses, layers["kc"].synapses
    to_lat, to_inh = layers["lat"].synapses[0], layers["inh"].synapses[0]
    for name, synapse in (("input_glom", to_glom), ("lat_glom", lat_glom), ("input_lat", to_lat)):
        table[f"w_{name}"] = synapse.weights.flat[0]
    table["w_glom_inh"], table["w_inh_kenyon"] = to_inh.weights.flat[0], inh_kc.weights.flat[0]
    table["w_glom_kenyon"], table["one"] = to_kc.weight, 1
    for name, synapse in (("input_glom", to_glom), ("input_lat", to_lat), ("lat", lat_glom)):
        table[f"ops_{name}"] = synapse.fan_out[0]
    table["ops_inh"], table["ops_glom_inh"] = inh_kc.fan_out[0], to_inh.fan_out[0]
    return table


def _write_back(net: StreamNet, state: list[np.ndarray], learn: bool) -> None:
    """Copy a net's state from the kernel's arrays into its elements."""
    plastic = net.elements["o"].synapses[0]
    weights, f, t_pre, small = state[:4]
    if learn:  # else they are as they were, but for what single precision has rounded off
        plastic.weights[...] = weights
        np.clip(plastic.weights, *plastic.bounds, out=plastic.weights)  # a float32 bound may lie beyond it
    plastic.filter.value[...], plastic.trace_pre[...] = f, t_pre
    for own, values in zip(_small(net), small, strict=True):
        own[...] = values
    if len(state) > 4:
        glom, single, kenyon, spiked = state[4:]
        neurons = {name: net.elements[name].neuron for name in mushroom_kernel.HIDDEN}
        neurons["glom"].v[...], neurons["glom"].spikes[...] = glom
        neurons["lat"].v[0], neurons["lat"].spikes[0], neurons["inh"].v[0], neurons["inh"].spikes[0] = single
        neurons["kc"].v[...], neurons["kc"].spikes[...] = kenyon, spiked[: len(kenyon)]
