"""The status: everything a person or `gossan onboard status` wants to know, once a second."""

from __future__ import annotations

import time
from collections.abc import Sized
from typing import Any, Protocol

from onboard.config import OnboardSettings
from onboard.health import Health
from onboard.live_flight import LiveFlight, software_version
from onboard.live_telemetry import LiveTelemetry
from onboard.recorder import CaptureStage, KeepStage
from onboard.sources.camera import LiveCamera
from onboard.writer import WriteStage

COUNTS = ("frames", "kept", "placed", "scanned", "looked_at", "detections", "alerts")


class Observed(Protocol):
    """What the status tells of the pipeline; see there."""

    settings: OnboardSettings
    health: Health
    phase: Any
    flight: LiveFlight | None
    last_flight: dict[str, Any]
    flights_closed: list[str]
    camera: LiveCamera
    telemetry: LiveTelemetry
    capture: CaptureStage
    keep: KeepStage
    writer: WriteStage

    @property
    def captured(self) -> Sized:
        """Frames that wait to be kept."""

    @property
    def to_scan(self) -> Sized:
        """Frames that wait for the network."""


def status_of(pipeline: Observed, running: bool) -> dict[str, Any]:
    """Returns the content of the status file."""
    flight = pipeline.flight
    now_ns = time.monotonic_ns()
    seen_ns = pipeline.capture.last_ns
    return {
        "version": software_version(),
        "running": running,
        "t_mono_ns": now_ns,
        "t_utc_host_s": time.time(),
        "phase": str(pipeline.phase),
        "flight": None if flight is None else flight_status(flight),
        "last_flight": pipeline.last_flight or None,
        "flights_closed": list(pipeline.flights_closed),
        "queues": {
            "captured": len(pipeline.captured),
            "keep": pipeline.keep.waiting,
            "scan": len(pipeline.to_scan),
            "write": pipeline.writer.waiting,
            "tell": pipeline.writer.untold,
        },
        "texts": list(pipeline.writer.texts),
        "vehicle": pipeline.telemetry.state(),
        "camera": {
            "source": pipeline.settings.camera.source,
            "frame_age_s": round((now_ns - seen_ns) * 1e-9, 2) if seen_ns else None,
            "failures": pipeline.camera.failures,
        },
        "stuck": pipeline.health.stuck(),
        **pipeline.health.snapshot(),
    }


def flight_status(flight: LiveFlight) -> dict[str, Any]:
    """Returns one flight's counters."""
    return {
        "flight_id": flight.flight_id,
        "folder": str(flight.folder),
        "resumed": flight.resumed,
        **{name: flight.counts.get(name, 0) for name in COUNTS},
        "backlog": len(flight.backlog),
        "coverage_percent": flight.coverage_percent,
        "gaps": flight.gaps,
        "disk": flight.guard.room.name.lower(),
        "not_kept": dict(flight.guard.not_kept),
    }
