"""A torch module as an element of a graph. Importing this imports no torch; making a TorchModule does."""

from __future__ import annotations

import numpy as np

from simulator.streamnet import Element, whole


class TorchModule(Element):
    """A `torch.nn.Module` as an element: module(*inputs, *hidden) returns a tensor, or a tuple of them, per step.

    Inputs are tensors (size,), float32, without gradients. With `hidden_sizes` the module gets as many tensors more,
    zeros at first and after a reset, and returns their next values behind its outputs: that way its state is part of
    the net's, and is reset and saved. What a module remembers by itself is not. It is put into evaluation mode and does
    not learn; its parameters and buffers are fixed (`fingerprint`). Raises ValueError where the module returns other
    numbers or sizes of tensors than announced.
    """

    def __init__(self, module, input_sizes, output_sizes, hidden_sizes=()):
        import torch

        if not isinstance(module, torch.nn.Module):
            raise ValueError(f"a TorchModule needs a torch.nn.Module, not {type(module).__name__}")
        super().__init__(input_sizes, output_sizes)
        self.hidden_sizes = tuple(whole("the size of a hidden vector", size) for size in hidden_sizes)
        self.module, self.torch = module.eval(), torch
        self._clear_hidden()

    def step(self, *inputs, learn=True):
        """Call the module."""
        given = [self.torch.tensor(value, dtype=self.torch.float32) for value in (*inputs, *self.hidden)]
        with self.torch.no_grad():
            returned = self.module(*given)
        returned = returned if isinstance(returned, tuple | list) else (returned,)
        arrays = [self._array(value) for value in returned]
        sizes = [(size,) for size in (*self.output_sizes, *self.hidden_sizes)]
        if [array.shape for array in arrays] != sizes:
            found = ", ".join(str(array.shape) for array in arrays)
            raise ValueError(f"the module returned shapes {found}; announced are {', '.join(map(str, sizes))}")
        ports = len(self.output_sizes)
        self.outputs, self.hidden = tuple(arrays[:ports]), arrays[ports:]
        return self.outputs

    def reset(self) -> None:
        """Set outputs and hidden vectors to zero."""
        super().reset()
        self._clear_hidden()

    def state(self):
        """Return outputs and hidden vectors."""
        return super().state() | {f"hidden{i}": array for i, array in enumerate(self.hidden)}

    def fixed(self):
        """Return the module's parameters and buffers."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.module.state_dict().items()}

    def parts(self):
        """Return the element and its module."""
        return [self, self.module]

    def _array(self, value) -> np.ndarray:
        if not isinstance(value, self.torch.Tensor):
            raise ValueError(f"the module must return tensors, not {type(value).__name__}")
        return value.detach().cpu().numpy().astype(float)

    def _clear_hidden(self) -> None:
        self.hidden = [np.zeros(size) for size in self.hidden_sizes]
