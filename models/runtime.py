"""ONNX Runtime, loaded on use: providers tried one at a time and judged by a golden answer."""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossan.errors import GossanError
from models.errors import DamagedModelError, EngineMissing, ModelError, ProviderError
from models.registry import ModelFolder, open_model

LOG = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Short names in the order of preference."""

PROBE_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What a provider made of the golden tile.

    Attributes:
        provider: Short name.
        ok: Whether the answer is within the manifest's tolerance.
        detail: Figures, or why not.
    """

    provider: str
    ok: bool
    detail: str


class Runtime:
    """The network of a model on one provider; sessions are made per tile size on first use.

    Args:
        model: A verified model.
        provider: ``auto``, ``tensorrt``, ``cuda`` or ``cpu``.
        threads: CPU threads, or ``None`` for the engine's own choice.
        role: The file to run, instead of the provider's own (for comparing files).

    Raises:
        EngineMissing: ONNX Runtime is not installed.
        ProviderError: The provider that was asked for fails its probe.
        ModelError: The graph is not what the manifest says.
    """

    def __init__(
        self,
        model: ModelFolder,
        provider: str = "auto",
        threads: int | None = None,
        role: str | None = None,
    ) -> None:
        engine()
        self.model, self.threads = model, threads
        self.provider = choose_provider(model) if provider == "auto" else asked(model, provider)
        self._file = file_for(model, self.provider, role)
        self._sessions: dict[int, Any] = {}

    def run(self, tile: Pixels) -> dict[str, Floats]:
        """Returns the logits (size/stride, size/stride, classes) of each head on a tile.

        Args:
            tile: (size, size, 3) uint8, contiguous.
        """
        session = self.session(tile.shape[0])
        heads = self.model.manifest.heads
        answers = session.run([head.output for head in heads.values()], {"pixels": tile[None]})
        return {
            name: np.ascontiguousarray(np.moveaxis(answer[0], 0, -1), np.float32)
            for name, answer in zip(heads, answers, strict=True)
        }

    def session(self, size: int) -> Any:
        """Returns the engine's session for one tile size, made on first use."""
        if size not in self._sessions:
            self._sessions[size] = make_session(
                self.model, self._file, self.provider, size, self.threads
            )
        return self._sessions[size]


def engine() -> Any:
    """Returns the onnxruntime module.

    Raises:
        EngineMissing: It is not installed, or a removed twin package left it empty.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineMissing(
            "no inference engine is installed (onnxruntime)",
            "pip install 'gossan[cpu]', or 'gossan[gpu]' where an NVIDIA driver answers",
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise EngineMissing(
            "the installed onnxruntime is an empty shell (one of its two packages was removed)",
            "pip uninstall onnxruntime onnxruntime-gpu; then pip install 'gossan[cpu]' or "
            "'gossan[gpu]', never both",
        )
    return onnxruntime


def has_nvidia_driver() -> bool:
    """Returns whether an NVIDIA driver is at hand (without loading it)."""
    return Path("/proc/driver/nvidia/version").exists() or bool(ctypes.util.find_library("cuda"))


def choose_provider(model: ModelFolder) -> str:
    """Returns the first provider that answers the golden tile; the CPU without an NVIDIA driver."""
    if has_nvidia_driver():
        for provider in ("tensorrt", "cuda"):
            if PROVIDERS[provider] not in engine().get_available_providers():
                continue
            probe = probe_apart(model, provider)
            LOG.info("provider_probed provider=%s ok=%s %s", provider, probe.ok, probe.detail)
            if probe.ok:
                return provider
    return "cpu"


def asked(model: ModelFolder, provider: str) -> str:
    """Returns the provider that was asked for, probed unless it is the CPU."""
    if provider not in PROVIDERS:
        raise ModelError(f"there is no provider '{provider}'", f"one of {', '.join(PROVIDERS)}")
    if provider != "cpu":
        probe = probe_apart(model, provider)
        if not probe.ok:
            raise ProviderError(
                f"the provider '{provider}' cannot be used: {probe.detail}",
                "use --provider auto or cpu; gossan onboard doctor shows the drivers",
            )
    return provider


def probe_apart(model: ModelFolder, provider: str) -> Probe:
    """Returns the probe of a provider, made in a process of its own (a driver may kill it)."""
    code = "import sys; from models.runtime import probe_main; probe_main(sys.argv[1], sys.argv[2])"
    home = str(Path(__file__).resolve().parent.parent)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(model.path), provider],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
            cwd=home,
        )
    except subprocess.TimeoutExpired:
        return Probe(provider, False, f"no answer within {PROBE_TIMEOUT_S:.0f} s")
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
        return Probe(provider, bool(told["ok"]), str(told["detail"]))
    except (IndexError, ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe(provider, False, f"the probe ended with {done.returncode}: {last[:200]}")


def probe_main(model: str, provider: str) -> None:
    """Probes a provider and writes the result as the last line on stdout (a process of its own)."""
    probe = probe_here(open_model(model), provider)
    line = json.dumps({"ok": probe.ok, "detail": probe.detail})
    sys.stdout.write("\n" + line + "\n")


def probe_here(model: ModelFolder, provider: str) -> Probe:
    """Returns how a provider's answer to the golden tile differs from the manifest's."""
    try:
        golden = load_golden(model)
        pixels = golden["pixels"]
        file = file_for(model, provider)
        session = make_session(model, file, provider, pixels.shape[0], None)
        heads = model.manifest.heads
        answers = session.run([h.output for h in heads.values()], {"pixels": pixels[None]})
    except (GossanError, RuntimeError) as error:
        return Probe(provider, False, str(error).splitlines()[0][:200])
    rule, worst, least = model.manifest.golden, 0.0, 1.0
    for name, answer in zip(heads, answers, strict=True):
        got, want = np.moveaxis(answer[0], 0, -1), golden[name]
        if not np.isfinite(got).all():
            return Probe(provider, False, f"head '{name}' answers NaN")
        worst = max(worst, float(np.abs(got - want).mean()))
        least = min(least, float((got.argmax(-1) == want.argmax(-1)).mean()))
    ok = worst <= rule.mean_abs_max and least >= rule.agreement_min
    return Probe(provider, ok, f"mean |Δlogit| {worst:.3f}, agreement {least:.4f}")


def load_golden(model: ModelFolder) -> dict[str, Any]:
    """Returns the golden tile ``pixels`` and the logits of each head."""
    path = model.file(model.manifest.golden.file)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DamagedModelError(f"cannot read the golden tile {path}: {error}") from error


def file_for(model: ModelFolder, provider: str, role: str | None = None) -> Path:
    """Returns the file that a provider runs: INT8 on the CPU, floats elsewhere, if there is one."""
    usual = ("cpu", "float") if provider == "cpu" else ("float", "cpu")
    for wanted in (role,) if role else usual:
        name = model.manifest.file_of(wanted)
        if name:
            return model.file(name)
    raise ModelError(
        f"{model.path} names no network", "give one file of the manifest the role cpu or float"
    )


def make_session(
    model: ModelFolder, file: Path, provider: str, size: int, threads: int | None
) -> Any:
    """Returns a session on exactly one provider, its input fixed to one tile size."""
    ort = engine()
    if PROVIDERS[provider] not in ort.get_available_providers():
        raise ProviderError(f"the installed onnxruntime has no {PROVIDERS[provider]}")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_free_dimension_override_by_name("height", size)
    options.add_free_dimension_override_by_name("width", size)
    if threads is not None:
        options.intra_op_num_threads = threads
    if provider != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        with _stdout_to_stderr() if provider != "cpu" else contextlib.nullcontext():
            session = ort.InferenceSession(str(file), options, providers=[PROVIDERS[provider]])
    except Exception as error:
        first = str(error).splitlines()[0][:200]
        raise ModelError(
            f"{file} cannot be loaded on {provider}: {first}",
            "export it with one file, opset 18, standard operators and no external data",
        ) from error
    _check_graph(model, file, session)
    return session


def _check_graph(model: ModelFolder, file: Path, session: Any) -> None:
    """Raises ModelError where inputs or outputs are not what the manifest says."""
    inputs = {item.name: item for item in session.get_inputs()}
    extra = sorted(set(inputs) - {"pixels"})
    if "pixels" not in inputs or extra:
        raise ModelError(
            f"{file} has the inputs {', '.join(sorted(inputs))}; one named 'pixels' is needed",
            "weights listed as graph inputs must become initializers; rename the image input",
        )
    pixels = inputs["pixels"]
    bands = len(model.manifest.bands)
    if pixels.type != "tensor(uint8)" or len(pixels.shape) != 4 or pixels.shape[3] != bands:
        raise ModelError(
            f"{file} takes {pixels.type} of shape {pixels.shape}, not uint8 "
            f"(1, height, width, {bands})",
            "fold the scaling into the first convolution and feed rows, columns, bands",
        )
    outputs = {item.name: item for item in session.get_outputs()}
    for name, head in model.manifest.heads.items():
        if head.output not in outputs:
            raise ModelError(
                f"{file} has no output '{head.output}' for head '{name}'",
                f"its outputs are {', '.join(outputs)}",
            )
        channels = outputs[head.output].shape[1]
        if isinstance(channels, int) and channels != len(head.classes):
            raise ModelError(
                f"{file} answers {channels} classes on '{head.output}', the manifest names "
                f"{len(head.classes)}"
            )


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Sends what native libraries print on stdout to stderr while it lasts."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
