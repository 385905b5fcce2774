"""The dense 3×3 residual encoder with an add-decoder, its heads, and its export to ONNX."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

INPUT_SCALE = 1.0 / 64.0
"""What a uint8 value is multiplied by; no mean is taken off, so that black borders stay zero."""

STRIDES = {"surface": 8, "anomaly": 4}
"""Output stride of the zoo's heads; other heads get 8."""


class ConvUnit(nn.Module):
    """A 3×3 (or 1×1) convolution, its normalisation, and a ReLU unless it is linear."""

    def __init__(
        self, wide_in: int, wide_out: int, *, size: int = 3, stride: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv: nn.Conv2d = nn.Conv2d(
            wide_in, wide_out, size, stride=stride, padding=size // 2, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(wide_out)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Returns the activations."""
        y: Tensor = self.norm(self.conv(x))
        return y if self.linear else functional.relu(y)

    def fold(self) -> None:
        """Folds the normalisation into the convolution (evaluation only)."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class Residual(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.first = ConvUnit(wide, wide)
        self.second = ConvUnit(wide, wide, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(x + f(x))."""
        return functional.relu(x + self.second(self.first(x)))


def _stage(wide_in: int, wide_out: int, blocks: int) -> nn.Sequential:
    down = ConvUnit(wide_in, wide_out, stride=2)
    return nn.Sequential(down, *[Residual(wide_out) for _ in range(blocks)])


class Res32(nn.Module):
    """Residual encoder to stride 32, add-decoder to strides 8 and 4; logits per head.

    No global pooling (an answer must not depend on the tile), no depthwise convolution (they
    block INT8). About 17 GOP per megapixel.

    Args:
        heads: Number of classes per head name.
        strides: Output stride per head, 4 or 8.
    """

    def __init__(self, heads: dict[str, int], strides: dict[str, int]) -> None:
        super().__init__()
        self.strides = strides
        self.scale = INPUT_SCALE
        self.stem = ConvUnit(3, 32, stride=2)
        self.down4 = _stage(32, 32, 2)
        self.down8 = _stage(32, 64, 1)
        self.down16 = _stage(64, 128, 1)
        self.down32 = _stage(128, 256, 1)
        self.side32 = ConvUnit(256, 64, size=1, linear=True)
        self.side16 = ConvUnit(128, 64, size=1, linear=True)
        self.side8 = ConvUnit(64, 64, size=1, linear=True)
        self.mix8 = ConvUnit(64, 64)
        self.side4 = ConvUnit(64, 32, size=1, linear=True)
        self.mix4 = ConvUnit(32, 32)
        self.heads = nn.ModuleDict(
            {name: nn.Conv2d(64 if strides[name] == 8 else 32, n, 1) for name, n in heads.items()}
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Returns logits (b, classes, h/stride, w/stride) per head.

        Args:
            pixels: (b, 3, h, w) values 0-255, height and width divisible by 32.
        """
        x4 = self.down4(self.stem(pixels if self.scale == 1 else pixels * self.scale))
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        deep = self.side16(x16) + _twice(self.side32(self.down32(x16)))
        y8 = self.mix8(functional.relu(self.side8(x8) + _twice(deep)))
        y4 = self.mix4(functional.relu(x4 + _twice(self.side4(y8))))
        return {
            name: head(y8 if self.strides[name] == 8 else y4) for name, head in self.heads.items()
        }


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def build(heads: dict[str, int]) -> Res32:
    """Returns an untrained network with these heads at the zoo's strides."""
    return Res32(heads, {name: STRIDES.get(name, 8) for name in heads})


class _Flying(nn.Module):
    """The network as it flies: uint8 (b, h, w, 3) in, logits per head out, scale folded."""

    def __init__(self, network: Res32) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Returns the logits in the order of the heads."""
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return tuple(self.network(planes).values())


def export_onnx(network: Res32, path: Path, tile_px: int) -> None:
    """Writes the network as one ONNX file: input ``pixels`` uint8 (1, tile, tile, 3).

    The normalisations and the input's scale are folded into the convolutions; softmax, argmax
    and upsampling stay outside. The spatial size is free in the graph.

    Args:
        network: A trained network; it is copied, not changed.
        path: Where to write.
        tile_px: Edge of the example tile, divisible by 32.
    """
    flying = _Flying(folded(network)).eval()
    example = torch.zeros((1, tile_px, tile_px, 3), dtype=torch.uint8)
    height, width = torch.export.Dim("height32", min=2), torch.export.Dim("width32", min=2)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            flying,
            (example,),
            path,
            input_names=["pixels"],
            output_names=list(flying.network.heads),
            dynamic_shapes={"pixels": {1: 32 * height, 2: 32 * width}},
            external_data=False,
            dynamo=True,
            verbose=False,
            opset_version=18,
        )
    quiet.setLevel(level)
    _tidy(path)


def _tidy(path: Path) -> None:
    """Names the free input sizes ``height`` and ``width`` and drops the exporter's notes."""
    model = onnx.load(str(path))
    graph = model.graph
    for at, name in ((1, "height"), (2, "width")):
        graph.input[0].type.tensor_type.shape.dim[at].dim_param = name
    for output in graph.output:
        for at in (2, 3):
            output.type.tensor_type.shape.dim[at].ClearField("dim_param")
    del graph.value_info[:]
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def folded(network: Res32) -> Res32:
    """Returns a copy for evaluation, with normalisations and the input's scale folded in."""
    copy = build({name: head.out_channels for name, head in _heads(network)})
    copy.load_state_dict(network.state_dict())
    copy.eval()
    for module in copy.modules():
        if isinstance(module, ConvUnit):
            module.fold()
    with torch.no_grad():
        copy.stem.conv.weight *= copy.scale
    copy.scale = 1.0
    return copy


def _heads(network: Res32) -> list[tuple[str, nn.Conv2d]]:
    return [(name, head) for name, head in network.heads.items() if isinstance(head, nn.Conv2d)]
