"""The binary-communication nets: dense, or three convolutions and a dense layer; each followed by units, then decoded.

    net = WhetstoneNet(WhetstoneParams(), shape=(8, 8, 1), n_classes=10)
    net.sharpen([1.0, 0.5, 0.0])     # dense1, dense2, output
    logits = net(net.pixels(images))

Letters in shapes: B samples, H x W pixels, C channels, K classes.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict

import torch
from torch import nn

from models.whetstone import Decoder, Unit, fold, make_key
from models.whetstone_params import WhetstoneParams

POOL = 2  # maximum of 2 x 2 after each convolution, as long as the image is that large


class WhetstoneNet(nn.Module):
    """Layers of weights, each with batch norm and sharpenable units, and the decoding of the last ones.

    The state dict has links.i (weights), norms.i (batch norm), units.i.sharpness for layer i, and decoder.key.
    """

    def __init__(self, params: WhetstoneParams, shape: tuple[int, ...], n_classes: int, seed: int = 0) -> None:
        """Draw the weights (Glorot and Bengio 2010, eq. 16; biases 0) and the key from `seed`; `shape` is (H, W, C)."""
        super().__init__()
        self.params, self.shape, self.n_classes = params, tuple(shape), n_classes
        self.names = layer_names(params)
        self.links, self.norms = nn.ModuleList(), nn.ModuleList()
        self.units = nn.ModuleList(Unit(params.activation) for _ in self.names)
        key = make_key(n_classes, params.width, params.overlapping, seed)
        self.decoder = Decoder(key)
        self._add_layers()
        self._draw_weights(torch.Generator().manual_seed(seed))

    def _add_layers(self) -> None:
        params = self.params
        height, width, channels = self.shape
        features = height * width * channels
        for name in self.names:
            if name.startswith("conv"):
                size, side = getattr(params, f"{name}_features"), getattr(params, f"{name}_filter")
                self.links.append(nn.Conv2d(channels, size, side, padding="same"))
                if min(height, width) >= POOL:
                    height, width = height // POOL, width // POOL
                channels, features = size, height * width * size
            else:
                size = {"dense1": params.dense_features, "dense2": params.dense2_features, "output": params.width}[name]
                self.links.append(nn.Linear(features, size))
                features = size
            self.links[-1].bias.requires_grad_(not params.batch_norm)  # whose mean takes it away again
            self.norms.append(_batch_norm(params, name, size) if params.batch_norm else nn.Identity())

    @torch.no_grad()
    def _draw_weights(self, generator: torch.Generator) -> None:
        for link in self.links:
            per_filter = link.weight[0, 0].numel()  # 1 in a dense layer
            limit = math.sqrt(6 / ((link.weight.shape[0] + link.weight.shape[1]) * per_filter))
            link.weight.uniform_(-limit, limit, generator=generator)
            link.bias.zero_()

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 images (B, H, W, C) as input from 0 to 1: (B, H W C), or (B, C, H, W) for convolutions."""
        x = images.float().div_(255)
        if self.params.network == "dense":
            return x.flatten(1)
        return x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) for input as of `pixels`."""
        return self.decoder(self.activities(x)[-1])

    def activities(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the output of each layer's units."""
        return [activity for _, activity in self.trace(x)]

    def trace(self, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return for each layer what reaches its weights and what its units put out."""
        traced = []
        for name, link, norm, unit in zip(self.names, self.links, self.norms, self.units, strict=True):
            x = x.flatten(1) if isinstance(link, nn.Linear) else x
            sums = link(x)
            if name == "dense1" and self.training and self.params.noise_location == "after_dense1":
                sums = sums + self.params.noise_std * torch.randn_like(sums)
            activity = unit(norm(sums))
            traced.append((x, activity))
            x = _pool(activity) if isinstance(link, nn.Conv2d) else activity
        return traced

    def sharpen(self, levels: list[float] | float) -> None:
        """Set each layer's sharpness, or all to one."""
        levels = levels if isinstance(levels, list) else [levels] * len(self.units)
        for unit, level in zip(self.units, levels, strict=True):
            unit.sharpen(level)

    def levels(self) -> list[float]:
        """Return each layer's sharpness."""
        return [float(unit.sharpness) for unit in self.units]

    def folded(self) -> nn.Module:
        """Return a copy for inference whose batch norms have gone into the weights (`models.whetstone.fold`)."""
        net = copy.deepcopy(self).eval()
        for index, (link, norm) in enumerate(zip(net.links, net.norms, strict=True)):
            if not isinstance(norm, nn.Identity):
                fold(link, norm)
                net.norms[index] = nn.Identity()
        return net

    def deployed(self) -> list[torch.Tensor]:
        """Return what an inference needs: batch norms in the weights, no sharpness, for all units are steps."""
        return [value for name, value in self.folded().state_dict().items() if not name.endswith(".sharpness")]

    def weights(self) -> list[nn.Parameter]:
        """Return the weights of each layer, biases left out."""
        return [link.weight for link in self.links]

    def size(self) -> int:
        """Count weights and biases of the net as deployed, batch norms folded."""
        return sum(link.weight.numel() + link.bias.numel() for link in self.links)

    def saved(self) -> dict:
        """Return what rebuilds the net: its state dict on the CPU and plain values, loadable with weights_only=True."""
        return {
            "state_dict": {name: value.detach().cpu().clone() for name, value in self.state_dict().items()},
            "params": asdict(self.params),
            "shape": list(self.shape),
            "n_classes": self.n_classes,
        }


def rebuild(saved: dict) -> WhetstoneNet:
    """Return the net of `WhetstoneNet.saved()`, in evaluation mode."""
    net = WhetstoneNet(WhetstoneParams(**saved["params"]), tuple(saved["shape"]), saved["n_classes"])
    net.load_state_dict(saved["state_dict"])
    return net.eval()


def layer_names(params: WhetstoneParams) -> list[str]:
    """Return the names of the layers, from the input on."""
    if params.network == "conv":
        return ["conv1", "conv2", "conv3", "dense1", "output"]
    return ["dense1", "dense2", "output"] if params.dense2_features else ["dense1", "output"]


def _batch_norm(params: WhetstoneParams, name: str, size: int) -> nn.Module:
    """Keras' momentum is what stays, torch's what is new; without center or scale the offset is 0, the factor 1."""
    kind, momentum = nn.BatchNorm1d, params.bn_momentum_dense
    if name.startswith("conv"):
        kind, momentum = nn.BatchNorm2d, params.bn_momentum_conv
    norm = kind(size, eps=params.bn_epsilon, momentum=1 - momentum)
    norm.bias.requires_grad_(params.bn_center)
    norm.weight.requires_grad_(params.bn_scale)
    return norm


def _pool(activity: torch.Tensor) -> torch.Tensor:
    """The maximum of 2 x 2, for binary activity a logical or; an image smaller than that stays."""
    return nn.functional.max_pool2d(activity, POOL) if min(activity.shape[2:]) >= POOL else activity
