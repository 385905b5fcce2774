"""``gossan bench``: every stage against its floor on this machine, side by side in one run."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import psutil

from gossan.console import emit, json_option, say, table
from gossan.errors import GossanError
from onboard.bench_stages import STAGES, Stage

ENGINES = ("onnxruntime", "onnxruntime-gpu")
LIBRARIES = ("numpy", "opencv-python-headless", "rasterio", *ENGINES)


@dataclass(frozen=True, slots=True)
class Timing:
    """What a stage and its floor took, medians of the same number of alternating runs.

    Attributes:
        stage: The stage.
        floor: What it can never beat.
        ms: Median of the stage.
        floor_ms: Median of the floor.
        about: How much work that was.
    """

    stage: str
    floor: str
    ms: float
    floor_ms: float
    about: str

    @property
    def ratio(self) -> float:
        """Stage over floor."""
        return self.ms / self.floor_ms if self.floor_ms > 0 else float("nan")


@click.command()
@click.option("--repeat", type=click.IntRange(1, 1000), default=9, show_default=True)
@click.option("--stage", "only", multiple=True, metavar="NAME", help="Only these stages.")
@click.option("--model", default="surface-rgb", show_default=True, help="Model for inference.")
@json_option
def bench(repeat: int, only: tuple[str, ...], model: str, as_json: bool) -> None:
    """Every stage against its floor on this machine.

    Stage and floor run in turns, so that whatever else the machine does hits both; medians are
    shown. Trust the ratios more than the milliseconds.
    """
    unknown = set(only) - set(STAGES)
    if unknown:
        raise click.UsageError(f"no stage {sorted(unknown)[0]}; there are {', '.join(STAGES)}")
    timings: list[Timing] = []
    missing: list[dict[str, str]] = []
    for name, make in STAGES.items():
        if only and name not in only:
            continue
        try:
            timings.append(measure(name, make, model, repeat))
        except (GossanError, ImportError) as error:
            missing.append({"stage": name, "why": str(error)})
    payload = {
        "machine": machine(),
        "repeat": repeat,
        "stages": [_row(timing) for timing in timings],
        "missing": missing,
    }
    emit(payload, as_json, lambda: _tell(payload))


def measure(
    name: str, make: Callable[[ExitStack, Path, str], Stage], model: str, repeat: int
) -> Timing:
    """Returns the medians of a stage and its floor, run in turns after one warm-up each.

    Args:
        name: The stage's name.
        make: Prepares it.
        model: Name of the model.
        repeat: Number of runs of each.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gossan-bench-")))
        stage = make(stack, folder, model)
        stage.work()
        stage.floor()
        pairs = [(_ms(stage.work), _ms(stage.floor)) for _ in range(repeat)]
    work, floor = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Timing(name, stage.floor_name, work, floor, stage.about)


def machine() -> dict[str, Any]:
    """Returns what names this machine: processor, cores, memory, versions, load."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(psutil.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    fields = {
        key.strip().lower(): value.strip() for key, _, value in (x.partition(":") for x in lines)
    }
    named = next((fields[key] for key in ("model name", "hardware") if fields.get(key)), "")
    if named:
        return named
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e6


def _row(timing: Timing) -> dict[str, Any]:
    return {
        "stage": timing.stage,
        "ms": round(timing.ms, 3),
        "floor": timing.floor,
        "floor_ms": round(timing.floor_ms, 3),
        "ratio": round(timing.ratio, 3),
        "about": timing.about,
    }


def _tell(payload: dict[str, Any]) -> None:
    host = payload["machine"]
    say(f"{host['processor']}, {host['cores']} cores, load {host['load']}")
    rows = [
        (s["stage"], s["about"], f"{s['ms']:.2f}", s["floor"], f"{s['floor_ms']:.2f}", s["ratio"])
        for s in payload["stages"]
    ]
    table("bench", ["stage", "work", "ms", "floor", "floor ms", "ratio"], rows)
    for item in payload["missing"]:
        say(f"{item['stage']}: not measured, {item['why']}")
