"""The gates pass a network calibrated on real tiles and refuse one calibrated on noise."""

from __future__ import annotations

import numpy as np
import pytest

from models.composite import ground
from models.errors import GateError, TrainingError
from models.quantize import Gates, Parity, cut_tiles, judge, parity, quantize_cpu

onnx = pytest.importorskip("onnx")

STRIDE = 4
LEVELS = (95.0, 175.0)


def brightness_net(path) -> None:
    """Writes a small network that sorts 4×4 cells by brightness: dark, middle, bright.

    ReLU(mean) feeds three linear answers that are largest below 95, between, and above 175.
    """
    from onnx import TensorProto, helper, numpy_helper

    low, high = LEVELS
    slopes = np.array([-1.0, 0.0, 1.0], np.float32).reshape(3, 1, 1, 1)
    offsets = np.array([low, 0.0, -high], np.float32)
    weights = {
        "w0": np.full((3, 3, 4, 4), 1 / 48, np.float32),
        "b0": np.zeros(3, np.float32),
        "w1": np.tile(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), 1),
        "b1": np.zeros(3, np.float32),
        "w2": np.concatenate([slopes, np.zeros((3, 2, 1, 1), np.float32)], axis=1),
        "b2": offsets,
    }
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", strides=[4, 4]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], name="body"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["bright"], name="head"),
    ]
    size = ["height", "width"]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, *size, 3])],
        [helper.make_tensor_value_info("bright", TensorProto.FLOAT, [1, 3, None, None])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))


def answers(path, tile):
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.moveaxis(session.run(["bright"], {"pixels": tile[None]})[0][0], 0, -1)


@pytest.fixture(scope="module")
def tiles() -> list[np.ndarray]:
    """Ground of very different brightness."""
    rng = np.random.default_rng(4)
    light = np.linspace(0.35, 1.6, 32)
    return [np.clip(ground(rng, 96) * k, 1, 255).astype(np.uint8) for k in light]


def quantized_parity(folder, tiles, calibration) -> Parity:
    brightness_net(folder / "f.onnx")
    quantize_cpu(folder / "f.onnx", folder / "q.onnx", calibration)

    def pairs():
        for tile in tiles:
            exact = answers(folder / "f.onnx", tile)
            mask = np.kron(exact.argmax(axis=2), np.ones((STRIDE, STRIDE))).astype(np.uint8)
            yield exact, answers(folder / "q.onnx", tile), mask

    return parity("bright", pairs(), STRIDE, 3)


def test_real_tiles_pass(tmp_path, tiles):
    figures = quantized_parity(tmp_path, tiles, tiles)
    judge([figures], Gates(mean_drop=0.02, class_drop=0.03, agreement=0.98))


def test_noise_is_refused(tmp_path, tiles):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(32)]
    figures = quantized_parity(tmp_path, tiles, noise)
    assert figures.class_drop > 0.006, "noise averages out: bright and dark ground is clipped"
    with pytest.raises(GateError, match="worst class drop"):
        judge([figures], Gates())


@pytest.mark.parametrize(
    ("figures", "what"),
    [
        (Parity("h", 0.0031, 0.004, 0.999), "mean IoU drop"),
        (Parity("h", 0.0, 0.0051, 0.999), "worst class drop"),
        (Parity("h", 0.0, 0.0, 0.9889), "agreement"),
    ],
)
def test_each_gate_fails_the_build(figures, what):
    with pytest.raises(GateError, match=what):
        judge([figures], Gates())
    judge([Parity("h", 0.003, 0.005, 0.989)], Gates())


def test_too_few_tiles_are_refused(tmp_path, tiles):
    with pytest.raises(TrainingError, match="31 tiles"):
        quantize_cpu(tmp_path / "f.onnx", tmp_path / "q.onnx", tiles[:31])


def test_tiles_are_cut_whole_and_spread(tiles):
    cut = cut_tiles(tiles, 64, 40)
    assert len(cut) == 40
    assert {tile.shape for tile in cut} == {(64, 64, 3)}
    assert cut_tiles(tiles, 128, 10) == []
