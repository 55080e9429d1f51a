"""A StreamNet as JSON, and back: its elements with all their arguments, weights included, and the edges between them.

    text = to_json(net)
    same = from_json(text)          # the same net at rest; what a step changes is in net.save(path)

Every part is {"type": class, argument: value, ...}; arrays are {"array": nested lists}. A Function or a TorchModule has
no description, for it is code. Nets of classes beside StreamNet have none either.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from simulator.encoders import Periodic, Poisson, Sequence
from simulator.memristor import Memristive, Pulses, Vteam
from simulator.more_neurons import AdaptiveLIF, ConductanceLayer, ConductanceLIF, RecurrentLayer
from simulator.neurons import LIF, Layer
from simulator.plasticity import RULES, Decay
from simulator.programmed import Programmed, TextRule
from simulator.streamnet import Element, StreamNet, _port
from simulator.synapses import OneToOne, Plastic, Sparse, Static

_NEURON, _FILTERED = "n tau threshold refractory", "sign tau=filter.tau delay=filter.delay"
_PLASTIC = f"weights rule pre post mod bounds tau_mod=filter_mod.tau {_FILTERED}"
_TEXT = f"{_PLASTIC} tag_limit max_delay delays"
ARGUMENTS = {  # of the constructors; "name=path" where the attribute is called otherwise
    LIF: _NEURON,
    AdaptiveLIF: f"{_NEURON} beta tau_adapt",
    ConductanceLIF: f"{_NEURON} e_exc e_inh",
    Layer: "neuron synapses",
    ConductanceLayer: "neuron synapses",
    RecurrentLayer: "neuron synapses recurrent",
    Static: f"weights {_FILTERED}",
    OneToOne: f"weights {_FILTERED}",
    Sparse: f"n_pre n_post probability weight seed {_FILTERED}",
    Plastic: _PLASTIC,
    Programmed: _TEXT,
    Memristive: f"{_TEXT} device pulses",
    Poisson: "n rates scale seed",
    Periodic: "n rates scale",
    Sequence: "spikes=sequence",
}
DATACLASSES = (*RULES, Decay, TextRule, Vteam, Pulses)
KNOWN = {known.__name__: known for known in (*ARGUMENTS, *DATACLASSES)}


def to_json(net: StreamNet, indent: int | None = None) -> str:
    """Return the net as JSON. Raises ValueError naming an element that has no description."""
    return json.dumps(describe(net), indent=indent)


def from_json(text: str) -> StreamNet:
    """Return the net that `to_json` described. Raises ValueError with the reason for another text."""
    try:
        description = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the description is not valid JSON: {error}") from None
    return build_net(description)


def describe(net: StreamNet) -> dict:
    """Return the net as a dict of JSON's types."""
    if type(net) is not StreamNet:
        raise ValueError(f"a {type(net).__name__} has no description: it is code")
    elements = {}
    for name, element in net.elements.items():
        try:
            described = describe(element) if isinstance(element, StreamNet) else _encoded(element)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
        elements[name] = {"element": described, "sources": net.sources[name]}
    inputs = dict(zip(net.inputs, net.input_sizes, strict=True))
    return {"type": "StreamNet", "inputs": inputs, "elements": elements, "exposed": net.exposed}


def build_net(description: dict) -> StreamNet:
    """Return the net of a dict that `describe` made, or one written by hand. Raises ValueError with the place."""
    _require_keys(description, "StreamNet", {"inputs", "elements", "exposed"})
    net, elements = StreamNet(description["inputs"]), description["elements"]
    if not isinstance(elements, dict):
        raise ValueError(f"elements must be {{name: {{'element': ..., 'sources': [...]}}}}, not {elements!r}")
    if not isinstance(description["exposed"], list):
        raise ValueError(f"exposed must be a list of [name, output port], not {description['exposed']!r}")
    for name, entry in elements.items():
        if not isinstance(entry, dict) or set(entry) != {"element", "sources"} or type(entry["sources"]) is not list:
            raise ValueError(f"{name!r} must be {{'element': ..., 'sources': [...]}}")
        try:
            element = _decoded(entry["element"])
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None
        if not isinstance(element, Element):
            raise ValueError(f"{name!r}: a {type(element).__name__} is no element of a net")
        net.add(name, element)
    for name, entry in elements.items():
        for port, source in enumerate(entry["sources"]):
            if source is not None:
                net.connect(tuple(source) if isinstance(source, list) else source, name, port)
    for output in description["exposed"]:
        net.expose(*_port(output))
    return net


def _encoded(value):
    """Return an argument as JSON's types."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, list | tuple):
        return [_encoded(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value)
    if kind in DATACLASSES:
        given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif kind in ARGUMENTS:
        given = _arguments(value)
    else:
        raise ValueError(f"a {kind.__name__} has no description: it is code")
    return {"type": kind.__name__} | {name: _encoded(argument) for name, argument in given.items()}


def _arguments(value) -> dict:
    given = {}
    for word in ARGUMENTS[type(value)].split():
        name, _, path = word.partition("=")
        given[name] = value
        for attribute in (path or name).split("."):
            given[name] = getattr(given[name], attribute)
    if isinstance(value, RecurrentLayer):
        given["synapses"] = value.synapses[:-1]
    return given


def _decoded(value):
    """Return what `_encoded` described. Raises ValueError for a type or an argument that is not known."""
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"array"}:
        return _array(value["array"])
    if value.get("type") == "StreamNet":
        return build_net(value)
    if str(value.get("type")) not in KNOWN:
        raise ValueError(f"unknown type {value.get('type')!r}; known: StreamNet, {', '.join(KNOWN)}")
    arguments = {name: _decoded(each) for name, each in value.items() if name != "type"}
    try:
        return KNOWN[value["type"]](**arguments)
    except TypeError as error:
        raise ValueError(f"{value['type']}: {error}") from None


def _array(lists) -> np.ndarray:
    try:
        return np.array(lists, dtype=float)
    except (TypeError, ValueError):
        raise ValueError("an array must be nested lists of numbers, of equal lengths") from None


def _require_keys(description, kind: str, keys: set[str]) -> None:
    if not isinstance(description, dict) or description.get("type") != kind or set(description) != keys | {"type"}:
        raise ValueError(f"the description of a net has the type {kind} and the keys {', '.join(sorted(keys))}")
