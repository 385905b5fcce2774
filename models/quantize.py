"""INT8 files of a float network, and the gates that refuse a bad one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossan.errors import MissingExtraError
from models.errors import GateError, TrainingError
from models.evaluate import iou_by_class

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MIN_TILES = 32


@dataclass(frozen=True, slots=True)
class Gates:
    """How much worse than the float network the INT8 one may be.

    Attributes:
        mean_drop: Largest drop of the mean IoU.
        class_drop: Largest drop of one class's IoU.
        agreement: Smallest share of pixels with the same best class.
    """

    mean_drop: float = 0.003
    class_drop: float = 0.005
    agreement: float = 0.989


@dataclass(frozen=True, slots=True)
class Parity:
    """INT8 against float on the same labelled pixels of one head.

    Attributes:
        head: Which.
        mean_drop: Mean IoU lost (negative: gained).
        class_drop: The most that one class lost.
        agreement: Share of pixels with the same best class.
    """

    head: str
    mean_drop: float
    class_drop: float
    agreement: float


def quantize_cpu(
    source: Path, target: Path, tiles: list[Pixels], *, method: str = "minmax"
) -> None:
    """Writes the INT8 file for the CPU: u8 activations, s8 per-channel weights, QDQ.

    The three-channel stem stays float (quantized, it is slower and less exact), and so do the
    heads' last convolutions (they cost nothing, and their steps would flip close decisions).

    Args:
        source: The float ONNX file with the input ``pixels``.
        target: Where to write.
        tiles: At least 32 real tiles (size, size, 3) of one size.
        method: ``minmax`` or ``percentile`` (99.99).

    Raises:
        TrainingError: There are too few tiles.
    """
    if len(tiles) < MIN_TILES:
        raise TrainingError(
            f"{len(tiles)} tiles are too few to calibrate INT8; at least {MIN_TILES} are needed",
            "give --calibrate a dataset with more frames",
        )
    try:
        import onnx
        from onnxruntime import quantization as ortq
    except ImportError as error:
        raise MissingExtraError(
            "quantizing needs 'onnx'", "pip install 'gossan[train,cpu]'"
        ) from error
    graph = onnx.load(str(source)).graph
    ends = {output.name for output in graph.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept = [convolutions[0].name, *(n.name for n in convolutions if ends & set(n.output))]
    methods = {
        "minmax": ortq.CalibrationMethod.MinMax,
        "percentile": ortq.CalibrationMethod.Percentile,
    }
    logging.getLogger().setLevel(max(logging.getLogger().level, logging.INFO))
    ortq.quantize_static(
        str(source),
        str(target),
        _reader(tiles),
        quant_format=ortq.QuantFormat.QDQ,
        activation_type=ortq.QuantType.QUInt8,
        weight_type=ortq.QuantType.QInt8,
        per_channel=True,
        nodes_to_exclude=kept,
        calibrate_method=methods[method],
        extra_options={"CalibPercentile": 99.99},
    )


def write_half(source: Path, target: Path) -> None:
    """Writes the FP16 file for GPU providers; input stays uint8, outputs float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(source))
    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(target))


def parity(
    head: str, pairs: Iterator[tuple[Floats, Floats, Pixels]], stride: int, n_classes: int
) -> Parity:
    """Returns how INT8 compares with float.

    Args:
        head: Name of the head.
        pairs: (float logits, INT8 logits, mask) per frame, logits (rows, cols, classes).
        stride: Pixels per cell; masks are compared at the middle of each cell.
        n_classes: Number of classes.
    """
    tables = np.zeros((2, n_classes, n_classes), np.int64)
    same = total = 0
    for float_logits, int8_logits, mask in pairs:
        truth = mask[stride // 2 :: stride, stride // 2 :: stride]
        rows, cols = truth.shape
        best = [x[:rows, :cols].argmax(axis=2) for x in (float_logits, int8_logits)]
        known = truth < n_classes
        for table, answer in zip(tables, best, strict=True):
            pair = truth[known].astype(np.int64) * n_classes + answer[known]
            table += np.bincount(pair, minlength=n_classes**2).reshape(n_classes, n_classes)
        same += int((best[0] == best[1]).sum())
        total += best[0].size
    occurs = tables[0].sum(axis=1) > 0
    iou = [iou_by_class(table)[occurs] for table in tables]
    drop = iou[0] - iou[1]
    return Parity(head, float(drop.mean()), float(drop.max()), same / max(total, 1))


def judge(figures: list[Parity], gates: Gates) -> None:
    """Passes silently, or refuses the INT8 network.

    Raises:
        GateError: A figure is beyond its gate; the message names head, figure and limit.
    """
    for p in figures:
        broken = [
            f"{what} {value:.4f} (limit {limit})"
            for what, value, limit, bad in (
                ("mean IoU drop", p.mean_drop, gates.mean_drop, p.mean_drop > gates.mean_drop),
                (
                    "worst class drop",
                    p.class_drop,
                    gates.class_drop,
                    p.class_drop > gates.class_drop,
                ),
                ("agreement", p.agreement, gates.agreement, p.agreement < gates.agreement),
            )
            if bad
        ]
        if broken:
            raise GateError(
                f"the INT8 network is refused on head '{p.head}': {'; '.join(broken)}",
                "calibrate on real tiles of the survey's kind, or with --method percentile",
            )


def cut_tiles(images: list[Pixels], size: int, count: int, seed: int = 0) -> list[Pixels]:
    """Returns up to ``count`` random full tiles (size, size, 3), spread over the images."""
    rng = np.random.default_rng(seed)
    usable = [image for image in images if min(image.shape[:2]) >= size]
    tiles = []
    for k in range(count if usable else 0):
        image = usable[k % len(usable)]
        y, x = (int(rng.integers(0, n - size + 1)) for n in image.shape[:2])
        tiles.append(np.ascontiguousarray(image[y : y + size, x : x + size]))
    return tiles


def _reader(tiles: list[Pixels]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(tiles)

        def get_next(self) -> dict[str, Pixels] | None:
            tile = next(self.left, None)
            return None if tile is None else {"pixels": tile[None]}

    return Reader()
