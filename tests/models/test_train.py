"""Training: repeatable, resumable, each head from its own labels, and exported as it was."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import train as loop  # noqa: E402
from models.errors import TrainingError  # noqa: E402
from models.network import build, export_onnx, folded  # noqa: E402
from models.sampling import Batch, Composed, Maker, Stream, batches, cells  # noqa: E402
from models.train import Recipe, head_loss, load_checkpoint, train  # noqa: E402

HEADS = {"surface": 3, "anomaly": 4}
RECIPE = Recipe(steps=4, size=64, threads=1)


class Plain:
    """Crops whose surface class is their brightness."""

    def draw(self, rng, size):
        k = int(rng.integers(3))
        image = np.full((size, size, 3), 40 + 80 * k, np.uint8)
        return image, np.full((size, size), k, np.uint8)


def streams():
    return (
        Stream("surface", ((Plain(), 2),), 8, 3),
        Stream("anomaly", ((Composed(()), 2),), 4, 4),
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    whole = train(streams(), HEADS, RECIPE, tmp_path / "a")

    class PowerCutError(Exception):
        pass

    def cut(step, _):
        if step == 2:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(streams(), HEADS, RECIPE, tmp_path / "b", watch=cut)
    resumed = train(streams(), HEADS, RECIPE, tmp_path / "b", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name
    saved, about = load_checkpoint(tmp_path / "b" / "checkpoint.pt")
    assert about["step"] == 4
    assert saved.strides == {"surface": 8, "anomaly": 4}


def test_worker_processes_make_the_same_batches():
    maker = Maker(streams()[1:], seed=3, size=64, fold=2)
    alone, helped = (list(batches(maker, 5, 9, workers)) for workers in (0, 2))
    assert len(alone) == len(helped) == 4
    for one, two in zip(alone, helped, strict=True):
        assert len(one["anomaly"].pixels) == 4, "fold doubles the crops"
        assert (one["anomaly"].pixels == two["anomaly"].pixels).all()
        assert (one["anomaly"].labels == two["anomaly"].labels).all()
    assert (alone[0]["anomaly"].pixels != alone[1]["anomaly"].pixels).any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device here")
def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="no CUDA device") as refusal:
        train(streams(), HEADS, Recipe(steps=1, size=64, device="cuda"), tmp_path)
    assert "--device cpu" in str(refusal.value.hint)


def test_a_run_starts_from_the_weights_of_another(tmp_path):
    first = train(streams(), HEADS, RECIPE, tmp_path / "a")
    still = Recipe(steps=1, size=64, threads=1, rate=0.0)
    second = train(streams(), HEADS, still, tmp_path / "b", start_from=tmp_path / "a")
    for name, value in first.state_dict().items():
        assert torch.allclose(value, second.state_dict()[name], atol=1e-6), name
    with pytest.raises(TrainingError, match="was trained for heads"):
        train(streams()[:1], {"surface": 3}, still, tmp_path / "c", start_from=tmp_path / "a")


def test_a_head_learns_from_its_own_labels_only():
    logits = torch.zeros((1, 3, 8, 8), requires_grad=True)
    ignored = Batch(np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 8, 8), 255))
    loss = head_loss(logits, ignored, 8, 3.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (logits.grad == 0).all()


def test_small_things_are_not_lost_between_cells():
    mask = np.zeros((1, 16, 16), np.uint8)
    mask[0, 2:6, 2:6] = 2
    mask[0, 12, 12] = 1
    mask[0, 8:12, 0:4] = 255
    label = cells(mask, 4, 3)[0]
    assert (label[:2, :2] == 2).all()
    assert label[3, 3] == 255
    assert label[2, 0] == 255
    assert label[0, 3] == 0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    def nan(logits, *_):
        return logits.sum() * float("nan")

    monkeypatch.setattr(loop, "head_loss", nan)
    with pytest.raises(TrainingError, match="not finite at step 0"):
        train(streams(), HEADS, RECIPE, tmp_path)


def test_a_broken_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(TrainingError, match="cannot be resumed"):
        train(streams(), HEADS, RECIPE, tmp_path, resume=True)
    with pytest.raises(TrainingError, match="no checkpoint"):
        load_checkpoint(tmp_path / "nowhere.pt")


def test_the_exported_graph_takes_bytes_and_answers_like_torch(tmp_path):
    import onnxruntime as ort

    torch.manual_seed(0)
    network = build(HEADS)
    network.train()
    pixels = np.random.default_rng(0).integers(0, 255, (1, 128, 128, 3), dtype=np.uint8)
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        network(planes)
    network.eval()
    with torch.no_grad():
        truth, flat = network(planes), folded(network)(planes)
    export_onnx(network, tmp_path / "n.onnx", 64)
    session = ort.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    got = dict(zip(HEADS, session.run(list(HEADS), {"pixels": pixels}), strict=True))
    for name in HEADS:
        assert flat[name].numpy() == pytest.approx(truth[name].numpy(), abs=1e-3)
        assert got[name] == pytest.approx(truth[name].numpy(), abs=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["n.onnx"], "no external data"
