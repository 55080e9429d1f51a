"""StreamNet: a graph of elements that step together; every edge between elements takes one step.

    net = StreamNet({"x": 784, "m": 10})
    net.add("o", Layer(LIF(10, tau=2.5), [Plastic(weights, MSE(lr=0.002))]), "x", "m")
    net.expose("o")
    (spikes,) = net.step(x, m, learn=True)

A StreamNet has named inputs and ordered outputs. In a step every element reads what the others put out in the last
step, and what is given to the net's inputs now; only then all of them move on. A StreamNet is an Element: it can be
part of another one. Source of the semantics: "AutoML for neuromorphic computing and application-driven co-design"
(arXiv 2302.13210), section II-A: each input port has exactly one source.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

Source = str | tuple[str, int]  # an input or element by name, or (element, number of its output port)


class Element:
    """A part with ordered input and output ports, each carrying a vector of a fixed size in each step.

    `outputs` holds the last step's output vectors; it exists, as zeros, from the beginning and after a reset.
    """

    def __init__(self, input_sizes: tuple[int, ...], output_sizes: tuple[int, ...]):
        self.input_sizes = tuple(whole("the size of an input port", size) for size in input_sizes)
        self.output_sizes = tuple(whole("the size of an output port", size) for size in output_sizes)
        self.clear_outputs()

    def clear_outputs(self) -> None:
        """Set all outputs to zero."""
        self.outputs = tuple(np.zeros(size) for size in self.output_sizes)

    def step(self, *inputs: np.ndarray, learn: bool = True) -> tuple[np.ndarray, ...]:
        """Advance by one step: take a vector per input port, set and return `outputs`.

        They are new arrays, and the inputs are left as they are: other elements may still have to read both.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Return to rest, outputs included; what was learnt, counters and random streams stay."""
        self.clear_outputs()

    def state(self) -> dict[str, np.ndarray]:
        """Return all arrays that a step changes, by name; they are the live arrays, not copies."""
        return {f"output{port}": array for port, array in enumerate(self.outputs)}

    def fixed(self) -> dict[str, np.ndarray]:
        """Return, by name, the arrays that no step changes, such as the weights of static synapses."""
        return {}

    def parts(self) -> list:
        """Return the element and all objects with a state in it: none of them can be a part of two elements."""
        return [self]

    def load_state(self, saved: dict[str, np.ndarray]) -> None:
        """Set every array of `state()` from `saved`. Raises ValueError naming keys or shapes that do not fit."""
        own = self.state()
        if own.keys() != saved.keys():
            differing = ", ".join(sorted(own.keys() ^ saved.keys()))
            raise ValueError(f"the saved state is of another net; only one of the two has: {differing}")
        for name, array in own.items():
            if array.shape != np.shape(saved[name]):
                raise ValueError(f"{name} has shape {array.shape} here and {np.shape(saved[name])} in the saved state")
        for name, array in own.items():
            array[...] = saved[name]


class Function(Element):
    """Any Python callable as an element: function(*inputs) returns a vector, or a tuple of vectors for several ports.

    It keeps no state of its own, for a reset or a saved state would not reach it, and reads nothing of the net but its
    inputs: a compiled run calls it for many steps beforehand, when the rest of the net has not moved yet.
    """

    def __init__(self, function: Callable, input_sizes: tuple[int, ...], output_sizes: tuple[int, ...]):
        if not callable(function):
            raise ValueError(f"a Function needs a callable, not {function!r}")
        super().__init__(input_sizes, output_sizes)
        self.function = function

    def step(self, *inputs, learn=True):
        """Call the function. Raises ValueError where it returns other numbers or sizes of vectors than announced."""
        returned = self.function(*(value.copy() for value in inputs))  # it may write into them
        returned = returned if isinstance(returned, tuple) else (returned,)
        outputs = tuple(np.array(value, dtype=float) for value in returned)
        if tuple(value.shape for value in outputs) != tuple((size,) for size in self.output_sizes):
            shapes = ", ".join(str(value.shape) for value in outputs)
            raise ValueError(f"the function returned shapes {shapes}; its output ports have sizes {self.output_sizes}")
        self.outputs = outputs
        return outputs


class Monitor:
    """Records a copy of one array of the state after every `every`-th step: spikes, potentials, traces or weights."""

    def __init__(self, path: str, every: int = 1):
        self.path, self.every = path, whole("every", every)
        self.values: list[np.ndarray] = []

    def record(self, state: dict[str, np.ndarray], step: int) -> None:
        """Take a copy where `step`, counted from 1, is a multiple of `every`. ValueError where a swap removed it."""
        if self.path not in state:
            raise ValueError(f"the monitored {self.path!r} is gone, its element was swapped; left: {', '.join(state)}")
        if step % self.every == 0:
            self.values.append(state[self.path].copy())

    def array(self) -> np.ndarray:
        """Return all records, shape (records, *shape of the array)."""
        return np.array(self.values)


class StreamNet(Element):
    """A graph of elements; see the module's docstring. What does not fit is a ValueError when it is connected."""

    def __init__(self, inputs: dict[str, int]):
        if not isinstance(inputs, dict):
            raise ValueError(f"inputs must be {{name: size}}, not {inputs!r}")
        for name in inputs:
            _check_name(name)
        self.inputs = tuple(inputs)
        self.elements: dict[str, Element] = {}
        self.sources: dict[str, list[Source | None]] = {}  # one per input port of an element
        self.exposed: list[tuple[str, int]] = []
        self.monitors: list[Monitor] = []
        self.steps = 0
        super().__init__(tuple(inputs.values()), ())

    @property
    def outputs(self) -> tuple[np.ndarray, ...]:
        """What the exposed elements put out in the last step, one vector per output port."""
        return tuple(self.elements[name].outputs[output] for name, output in self.exposed)

    def clear_outputs(self) -> None:
        """Set the outputs of all elements to zero."""
        for element in self.elements.values():
            element.clear_outputs()

    def add(self, name: str, element: Element, *sources: Source) -> Element:
        """Add `element` as `name` and connect `sources` to its input ports, in order. Returns the element."""
        _check_name(name)
        if name in self.elements or name in self.inputs:
            raise ValueError(f"the name {name!r} is taken; names in this net: {self._names()}")
        self._check_element(name, element)
        if len(sources) > len(element.input_sizes):
            raise ValueError(f"{name!r} has {len(element.input_sizes)} input ports, but {len(sources)} sources given")
        self.elements[name] = element
        self.sources[name] = [None] * len(element.input_sizes)
        try:
            for port, source in enumerate(sources):
                self.connect(source, name, port)
        except ValueError:
            del self.elements[name], self.sources[name]
            raise
        return element

    def connect(self, source: Source, target: str, port: int = 0) -> None:
        """Make `source` the one source of an input port of the element `target`."""
        element = self._element(target)
        if whole("the number of an input port", port, 0) >= len(element.input_sizes):
            raise ValueError(f"{target!r} has input ports 0 to {len(element.input_sizes) - 1}, not {port}")
        taken = self.sources[target][port]
        if taken is not None:
            raise ValueError(f"port {port} of {target!r} already has the source {taken!r}; a second is {source!r}")
        size = self._size(source)
        if size != element.input_sizes[port]:
            raise ValueError(
                f"{source!r} puts out {size} values, but port {port} of {target!r} takes {element.input_sizes[port]}"
            )
        self.sources[target][port] = source if isinstance(source, str) else _port(source)

    def expose(self, name: str, output: int = 0) -> None:
        """Make an output port of the element `name` the net's next output port."""
        self._element(name)
        size = self._size((name, output))
        self.exposed.append((name, output))
        self.output_sizes = (*self.output_sizes, size)

    def swap(self, name: str, element: Element) -> Element:
        """Put `element` in the place of another with the same ports. Returns the old one."""
        old = self._element(name)
        self._check_element(name, element, instead_of=old)
        ports, others = (old.input_sizes, old.output_sizes), (element.input_sizes, element.output_sizes)
        if ports != others:
            raise ValueError(f"{name!r} has input and output ports of sizes {ports}; the other element has {others}")
        self.elements[name] = element
        return old

    def monitor(self, path: str, every: int = 1) -> Monitor:
        """Record the array `path` of `state()` (such as "o/v" or "o/synapse0/weights") while stepping."""
        if path not in self.state():
            raise ValueError(f"nothing is called {path!r}; choose from: {', '.join(self.state())}")
        self.monitors.append(Monitor(path, every))
        return self.monitors[-1]

    def step(self, *inputs, learn=True):
        """Advance all elements by one step. With `learn` off traces move and weights do not. Returns copies."""
        given = self._given(inputs)
        gathered = {name: [self._read(source, given) for source in self.sources[name]] for name in self.elements}
        for name, element in self.elements.items():
            element.step(*gathered[name], learn=learn)
        self.steps += 1
        for monitor in self.monitors:
            monitor.record(self.state(), self.steps)
        return tuple(output.copy() for output in self.outputs)

    def reset(self) -> None:
        """Reset every element, outputs included."""
        for element in self.elements.values():
            element.reset()

    def state(self) -> dict[str, np.ndarray]:
        """Return the live arrays of all elements by "element/array"; those of nested nets by "net/element/array"."""
        return {f"{name}/{key}": a for name, element in self.elements.items() for key, a in element.state().items()}

    def fixed(self) -> dict[str, np.ndarray]:
        """Return what no step changes of all elements, named as in `state`."""
        return {f"{name}/{key}": a for name, element in self.elements.items() for key, a in element.fixed().items()}

    def fingerprint(self) -> np.ndarray:
        """Return a checksum () of `fixed`: a state belongs to a net with the same fixed weights and connections."""
        checksum = 0
        for name, array in self.fixed().items():
            checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(name.encode(), checksum))
        return np.array(checksum, dtype=np.uint32)

    def parts(self) -> list:
        """Return the net, its elements and what is in them, at any depth."""
        return [self] + [part for element in self.elements.values() for part in element.parts()]

    def save(self, path: Path | str) -> None:
        """Write the state to an .npz file at exactly this path. What is fixed is not in it, but its fingerprint is."""
        with open(path, "wb") as file:  # np.savez would put .npz behind another name
            np.savez(file, fingerprint=self.fingerprint(), **self.state())

    def restore(self, path: Path | str) -> None:
        """Read the state from a file that `save` wrote. Raises ValueError where it is none, or that of another net."""
        try:
            with np.load(path, allow_pickle=False) as file:
                saved = dict(file)
        except (ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a saved state ({type(error).__name__})") from None
        check_fingerprint(self, saved.pop("fingerprint", None))
        self.load_state(saved)

    def after_run(self, steps: int) -> None:
        """Count the steps by which a kernel has moved the elements on."""
        for element in self.elements.values():
            if isinstance(element, StreamNet):
                element.after_run(steps)
        self.steps += steps

    def check_connected(self) -> None:
        """Raise ValueError where an input port has no source or a part is used twice, here or in a net within."""
        open_ports = self._open_ports()
        if open_ports:
            raise ValueError(f"no source is connected to port {', '.join(open_ports)}")
        twice = _repeated(self.parts())  # `add` has looked, but cannot see what a net within gets later
        if twice is not None:
            raise ValueError(f"two elements share one {type(twice).__name__}: give one of them a copy")

    def _open_ports(self, prefix: str = "") -> list[str]:
        found = []
        for name, element in self.elements.items():
            ports = [port for port, source in enumerate(self.sources[name]) if source is None]
            found += [f"{port} of {prefix + name!r}" for port in ports]
            found += element._open_ports(f"{prefix}{name}/") if isinstance(element, StreamNet) else []
        return found

    def _given(self, inputs) -> dict[str, np.ndarray]:
        self.check_connected()
        if len(inputs) != len(self.inputs):
            raise ValueError(f"the net's inputs are {', '.join(self.inputs) or 'none'}; {len(inputs)} vectors given")
        arrays = {name: np.asarray(value, dtype=float) for name, value in zip(self.inputs, inputs, strict=True)}
        for (name, array), size in zip(arrays.items(), self.input_sizes, strict=True):
            if array.shape != (size,):
                raise ValueError(f"input {name!r} takes a vector of {size} values, not shape {array.shape}")
        return arrays

    def _read(self, source: Source, given: dict[str, np.ndarray]) -> np.ndarray:
        if source in given:
            return given[source]
        name, output = _port(source)
        return self.elements[name].outputs[output]

    def _size(self, source: Source) -> int:
        if source in self.inputs:
            return self.input_sizes[self.inputs.index(source)]
        name, output = _port(source)
        if name not in self.elements:
            raise ValueError(f"unknown source {source!r}; names in this net: {self._names()}")
        sizes = self.elements[name].output_sizes
        if not 0 <= output < len(sizes):
            raise ValueError(f"{name!r} has {len(sizes)} output ports, counted from 0; there is no {output}")
        return sizes[output]

    def _element(self, name: str) -> Element:
        if name not in self.elements:
            raise ValueError(f"unknown element {name!r}; elements: {', '.join(self.elements) or 'none'}")
        return self.elements[name]

    def _check_element(self, name: str, element: Element, instead_of: Element | None = None) -> None:
        if not isinstance(element, Element):
            raise ValueError(f"{name!r} must be an Element, not {type(element).__name__}; wrap a callable in Function")
        own = element.parts()
        if any(part is self for part in own):
            raise ValueError(f"{name!r} cannot be added: a net cannot be a part of itself")
        others = [part for other in self.elements.values() if other is not instead_of for part in other.parts()]
        twice = _repeated(others + own)
        if twice is not None:
            raise ValueError(f"{name!r} shares its {type(twice).__name__} with an element here: give it a copy")

    def _names(self) -> str:
        return ", ".join([*self.inputs, *self.elements]) or "none"


def check_fingerprint(net: StreamNet, saved: np.ndarray | None) -> None:
    """Raise ValueError where a saved state's fingerprint is not the net's."""
    if saved is None or not np.array_equal(saved, net.fingerprint()):
        raise ValueError("the saved state is of another net, with other fixed weights or connections: build it alike")


def whole(name: str, value: int, least: int = 1) -> int:
    """Return `value` as an int. Raises ValueError, by `name`, for what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def _repeated(parts: list) -> object | None:
    """Return a part that is listed twice, if there is one."""
    seen = set()
    for part in parts:
        if id(part) in seen:
            return part
        seen.add(id(part))
    return None


def _port(source: Source) -> tuple[str, int]:
    if isinstance(source, str):
        return source, 0
    if not isinstance(source, tuple | list) or len(source) != 2 or not isinstance(source[0], str):
        raise ValueError(f"a source is a name or (name, number of its output port), not {source!r}")
    return source[0], whole("the number of an output port", source[1], 0)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"a name must be a text without '/', not {name!r}")
