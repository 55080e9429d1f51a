"""From a StreamNet to the tables of `graph_kernel.py`: nested nets are flattened, layers become table rows.

Layers are what the kernel knows. Other elements (generators, functions) are known where nothing depends on layers: they
are stepped in Python beforehand and their outputs given to the kernel, one step late, as every edge is. Anything else
raises NotLowerable with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator import graph_kernel as kernel
from simulator.awake_kernel import all_awake, awake_table, empty_block
from simulator.memristor import Memristive
from simulator.more_neurons import AdaptiveLIF, ConductanceLayer, ConductanceLIF, RecurrentLayer
from simulator.neurons import LIF, Layer
from simulator.plasticity import MSE, STDP, Decay, ModulatedSTDP, ReleasedMSE
from simulator.programmed import MORE_TRACES, Programmed, TextRule
from simulator.rule_kernel import assemble
from simulator.streamnet import Element, StreamNet, _port
from simulator.synapses import OneToOne, Plastic, Sparse, Static, signed

KINDS = {Static: kernel.DENSE, Plastic: kernel.DENSE, OneToOne: kernel.ONE_TO_ONE, Sparse: kernel.SPARSE}
KINDS |= {Programmed: kernel.DENSE, Memristive: kernel.DENSE}
RULES = {
    STDP: kernel.STDP,
    ModulatedSTDP: kernel.MODULATED_STDP,
    MSE: kernel.MSE,
    ReleasedMSE: kernel.RELEASED_MSE,
    TextRule: kernel.TEXT,
}
LAYERS = (Layer, RecurrentLayer, ConductanceLayer)
NEURONS = {LIF: kernel.LIF, AdaptiveLIF: kernel.ADAPTIVE, ConductanceLIF: kernel.CONDUCTANCE}
Place = tuple[str, int]  # ("element path", output port), or ("", number of the net's input)


class NotLowerable(Exception):
    """Why the compiled kernel cannot run a graph; `step()` can."""


def flatten(
    net: StreamNet, given: list[Place] | None = None, prefix: str = ""
) -> dict[str, tuple[Element, list[Place]]]:
    """Return {path: (element, its sources)} of all elements that are not nets themselves, at any depth.

    Raises NotLowerable for a net of a class derived from StreamNet, which may step otherwise.
    """
    if type(net) is not StreamNet:
        raise NotLowerable(f"{prefix or 'the net'} is a {type(net).__name__}, not a StreamNet itself")
    given = [("", i) for i in range(len(net.inputs))] if given is None else given
    flat = {}
    for name, element in net.elements.items():
        sources = [_place(net, source, given, prefix) for source in net.sources[name]]
        if isinstance(element, StreamNet):
            flat |= flatten(element, sources, f"{prefix}{name}/")
        else:
            flat[prefix + name] = (element, sources)
    return flat


def _place(net: StreamNet, source, given: list[Place], prefix: str) -> Place:
    if source in net.inputs:
        return given[net.inputs.index(source)]
    name, output = _port(source)
    while isinstance(net.elements[name], StreamNet):
        net, prefix = net.elements[name], f"{prefix}{name}/"
        name, output = net.exposed[output]
    return prefix + name, output


@dataclass
class Program:
    """A lowered graph: tables for the kernel, and where the state has to be written back to."""

    front: dict[str, tuple[Element, list[Place]]]  # stepped in Python beforehand
    input_sizes: tuple[int, ...]
    n_given: int  # signals that are given: the net's inputs, then what the front puts out
    layers: np.ndarray
    synapses: np.ndarray
    pool: np.ndarray
    rest: int  # pool[rest:] is cleared by a reset
    signals: np.ndarray
    whole: np.ndarray
    counters: np.ndarray
    shown: np.ndarray
    arrays: list[tuple[np.ndarray, np.ndarray]]  # (an element's own array, its flat copy as a view)

    def write_back(self) -> None:
        """Copy the kernel's state into the elements'."""
        for own, copy in self.arrays:
            own[...] = copy.reshape(own.shape)


def lower(net: StreamNet) -> Program:
    """Return the Program of a net in its present state. Raises NotLowerable with the reason."""
    flat = flatten(net)
    layers = {path: parts for path, parts in flat.items() if type(parts[0]) in LAYERS}  # others may step otherwise
    front = {path: parts for path, parts in flat.items() if path not in layers}
    for path, (element, sources) in front.items():
        if any(source in layers for source, _ in sources):
            raise NotLowerable(f"{path!r} ({type(element).__name__}) depends on a layer and has no compiled form")
    return _Tables(net, layers, front).program()


class _Tables:
    """Collects rows, state and offsets of one net."""

    def __init__(self, net: StreamNet, layers: dict, front: dict):
        self.net, self.layers, self.front = net, layers, front
        self.signal_at: dict[Place, int] = {}
        self.kept: list[np.ndarray] = []  # weights
        self.cleared: list[np.ndarray] = []  # what a reset clears
        self.whole: list[np.ndarray] = []
        self.synapses: list[dict] = []
        self._place_signals()

    def _place_signals(self) -> None:
        at = 0
        for i, size in enumerate(self.net.input_sizes):
            self.signal_at["", i] = at
            at += size
        for elements in (self.front, self.layers):
            for path, (element, _) in elements.items():
                for port, size in enumerate(element.output_sizes):
                    self.signal_at[path, port] = at
                    at += size
            self.n_given = at if elements is self.front else self.n_given
        self.n_signals = at

    def program(self) -> Program:
        rows = [self._layer(path, *parts) for path, parts in self.layers.items()]
        shown = [self._shown(net_output) for net_output in self.net.exposed]
        kept, cleared = _joined(self.kept, float), _joined(self.cleared, float)
        pool = np.concatenate([kept, cleared])
        program = Program(
            self.front,
            self.net.input_sizes,
            self.n_given,
            _table(rows, kernel.LAYER),
            _table(self.synapses, kernel.SYNAPSE),
            pool,
            len(kept),
            np.zeros(self.n_signals),
            _joined(self.whole, np.int64),
            np.zeros((len(rows), 2), dtype=np.int64),
            _joined(shown, np.int64),
            [],
        )
        self._resolve(program)
        return program

    def _resolve(self, program: Program) -> None:
        """Make offsets of cleared state absolute, and pair every array of an element with its place."""
        for table, names in ((program.layers, ("v", "adaptation")), (program.synapses, CLEARED)):
            for name in names:
                table[name] += program.rest
        at = 0
        for own in (*self.kept, *self.cleared):
            program.arrays.append((own, program.pool[at : at + own.size]))
            at += own.size
        for index, (path, (layer, _)) in enumerate(self.layers.items()):
            first = self.signal_at[path, 0]
            program.signals[first : first + layer.neuron.n] = layer.neuron.spikes
            program.counters[index] = layer.counters
            program.arrays.append((layer.neuron.spikes, program.signals[first : first + layer.neuron.n]))
            program.arrays.append((layer.counters, program.counters[index]))

    def _layer(self, path: str, layer: Layer, sources: list[Place]) -> dict:
        neuron = layer.neuron
        if type(neuron) not in NEURONS or not layer.synapses:
            raise NotLowerable(f"{path!r} is not LIF neurons with synapses")
        if isinstance(neuron, ConductanceLIF) and not isinstance(layer, ConductanceLayer):
            raise NotLowerable(f"the neurons of {path!r} take conductances, and its currents are not")
        if isinstance(layer, RecurrentLayer):
            sources = [*sources[: layer.own_port], (path, 0), *sources[layer.own_port :]]
        row = {"n": neuron.n, "signal": self.signal_at[path, 0], "v": _append(self.cleared, neuron.v)}
        row |= {"decay": neuron.decay, "threshold": neuron.threshold, "refractory": neuron.refractory}
        row |= {"neuron": NEURONS[type(neuron)]} | {key: getattr(neuron, key, 0.0) for key in MORE_CONSTANTS}
        if isinstance(neuron, AdaptiveLIF):
            row["adaptation"] = _append(self.cleared, neuron.adaptation)
        row |= {"first": len(self.synapses), "count": len(layer.synapses)}
        for synapse in layer.synapses:
            ports, sources = sources[: len(synapse.input_sizes)], sources[len(synapse.input_sizes) :]
            self.synapses.append(self._synapse(path, synapse, [self.signal_at[place] for place in ports]))
        return row

    def _synapse(self, path: str, synapse, at: list[int]) -> dict:
        if type(synapse) not in KINDS:
            raise NotLowerable(f"{path!r} has a synapse of the unknown type {type(synapse).__name__}")
        row = {"kind": KINDS[type(synapse)], "n_post": synapse.n_post, "n_pre": synapse.n_pre, "source": at[0]}
        row |= {"sign": signed(synapse.sign), "keep": synapse.filter.keep, "delay": synapse.filter.delay}
        row |= {
            "value": _append(self.cleared, synapse.filter.value),
            "late": _append(self.cleared, synapse.filter.late),
        }
        row |= {"fan_out": _append(self.whole, synapse.fan_out), "rule": kernel.NO_RULE}
        if isinstance(synapse, Sparse):
            starts = np.concatenate([[0], np.cumsum(synapse.mask.sum(axis=1))])
            row |= {"weight": synapse.weight, "starts": _append(self.whole, starts)}
            return row | {"targets": _append(self.whole, np.nonzero(synapse.mask)[1])}
        row["weights"] = _append(self.kept, synapse.weights)
        return row | (self._rule(synapse, at[-1]) if isinstance(synapse, Plastic) else {})

    def _rule(self, synapse: Plastic, mod_source: int) -> dict:
        rule = synapse.rule
        row = {"rule": RULES[type(rule)], "mod_source": mod_source, "low": synapse.bounds[0], "high": synapse.bounds[1]}
        row["rule_a"], row["rule_b"] = rule_constants(rule)
        for name, decay in (("pre", synapse.pre), ("post", synapse.post), ("mod", synapse.mod)):
            row[f"trace_{name}"] = _append(self.cleared, getattr(synapse, f"trace_{name}"))
            row |= {f"{name}_gain": decay.gain, f"{name}_limit": decay.limit}
            row["mod_keep_trace" if name == "mod" else f"{name}_keep"] = decay.keep
        row["mod_value"] = _append(self.cleared, synapse.filter_mod.value)
        row |= self._text(synapse) if isinstance(synapse, Programmed) else {}
        return row | {"mod_keep": synapse.filter_mod.keep}

    def _text(self, synapse: Programmed) -> dict:
        """Return what a rule given as text has beyond the others."""
        program, numbers = assemble(synapse)
        row = {"program": _append(self.whole, program), "numbers": _append(self.kept, numbers)}
        row |= {"awake": _append(self.whole, awake_table(synapse)), "all_awake": all_awake(synapse)}
        row |= {"block": _append(self.kept, empty_block(synapse))}
        row |= {"modulated": synapse.rule.modulated, "has_tag": synapse.tag.size, "has_delays": synapse.delays.size}
        row |= {"epochs": _append(self.kept, synapse.epochs), "delays": _append(self.kept, synapse.delays)}
        row |= {"tag": _append(self.cleared, synapse.tag), "line": _append(self.cleared, synapse.line)}
        for name in MORE_TRACES:
            row[f"trace_{name}"] = _append(self.cleared, getattr(synapse, f"trace_{name}"))
            decay = getattr(synapse.rule, name) or Decay(0, 0)
            row |= {f"{name}_gain": decay.gain, f"{name}_keep": decay.keep, f"{name}_limit": decay.limit}
        row |= self._device(synapse) if isinstance(synapse, Memristive) else {}
        return row | {"tag_limit": synapse.tag_limit, "max_delay": synapse.max_delay}

    def _device(self, synapse: Memristive) -> dict:
        device, row = synapse.device, {"has_device": True, "device": _append(self.kept, synapse.z)}
        for names, values in (
            (("swing_up", "swing_down", "swing_read"), synapse.swings()),
            (("window", "window_p", "window_first", "window_second"), device.window_numbers()),
        ):
            row |= dict(zip(names, values, strict=True))
        row |= {"least": synapse.pulses.least, "exponential": device.resistance == "exponential"}
        return row | {"offset": synapse.offset, "scale": synapse.scale, "r_on": device.r_on, "r_off": device.r_off}

    def _shown(self, output: tuple[str, int]) -> np.ndarray:
        path, port = _place(self.net, output, [], "")
        if path not in self.layers:
            raise NotLowerable(f"the net's output {path!r} is not a layer")
        first = self.signal_at[path, port]
        return np.arange(first, first + self.layers[path][0].neuron.n)


def rule_constants(rule) -> tuple[float, float]:
    """Return the two numbers of a rule, as the kernels know them: a_plus and a_minus, or lr and alpha."""
    if isinstance(rule, TextRule):
        return 0.0, 0.0
    if isinstance(rule, STDP | ModulatedSTDP):
        return rule.a_plus, rule.a_minus
    return rule.lr, rule.alpha if isinstance(rule, MSE) else 0.0


MORE_CONSTANTS = ("tau", "beta", "keep", "e_exc", "e_inh")  # of neurons beside LIF
CLEARED = ("value", "late", "trace_pre", "trace_post", "trace_mod", "mod_value")
CLEARED += ("trace_x2", "trace_y2", "trace_y3", "tag", "line")


def _append(arrays: list[np.ndarray], array: np.ndarray) -> int:
    """Append an array and return where it begins."""
    arrays.append(array)
    return sum(other.size for other in arrays[:-1])


def _joined(arrays: list[np.ndarray], dtype) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays]).astype(dtype) if arrays else np.zeros(0, dtype)


def _table(rows: list[dict], dtype: np.dtype) -> np.ndarray:
    table = np.zeros(len(rows), dtype=dtype)
    for index, row in enumerate(rows):
        for name, value in row.items():
            table[name][index] = value
    return table
