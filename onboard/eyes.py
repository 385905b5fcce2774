"""What looks at frames: the model of the settings, opened and checked, or none."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gossan.errors import GossanError, SettingsError
from onboard.config import ModelSettings
from onboard.scan import Scanner

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Eyes:
    """A scanner and what it looks with.

    Attributes:
        scanner: Without a model it gives footprints and no detections.
        model_hash: SHA-256 of the model's manifest; empty without one.
        model_name: Its name; ``none`` without one.
        provider: The engine's provider in use; empty without a model.
        calibrated: Whether its probabilities are calibrated.
    """

    scanner: Scanner
    model_hash: str = ""
    model_name: str = "none"
    provider: str = ""


def open_eyes(settings: ModelSettings, gsd_m: float | None = None) -> Eyes:
    """Returns the scanner with the model of the settings.

    Args:
        settings: Which model.
        gsd_m: Ground sample distance of the orthos; ``None`` takes the model's.

    Raises:
        GossanError: No engine, no such model, or not the one it should be.
    """
    if settings.name == "none":
        return blind(gsd_m)
    from models.predict import Predictor  # the engine is loaded only where it is used

    try:
        predictor = Predictor.open(settings.name, settings.threads or None, settings.provider)
    except ImportError as error:
        raise SettingsError(
            f"no inference engine: {error}", "pip install 'gossan[cpu]' (or gpu, or JetPack's)"
        ) from error
    if settings.sha256 and predictor.hash != settings.sha256:
        raise SettingsError(
            f"[model] {settings.name} has hash {predictor.hash[:12]}, not {settings.sha256[:12]}",
            "install the model that the settings name, or correct [model] sha256",
        )
    scanner = Scanner(predictor, gsd_m or predictor.manifest.gsd_m, settings.denoise)
    name = f"{predictor.manifest.name} {predictor.manifest.version}"
    log.info("model_open model=%s provider=%s", name, predictor.provider)
    return Eyes(scanner, predictor.hash, name, predictor.provider)


def open_eyes_or_blind(settings: ModelSettings) -> tuple[Eyes, GossanError | None]:
    """Returns the scanner, and why it has no model although one was asked for."""
    try:
        return open_eyes(settings), None
    except GossanError as error:
        return blind(None), error
    except Exception as error:  # an engine's own failures: recording must go on
        log.exception("model_failed model=%s", settings.name)
        return blind(None), SettingsError(f"the model cannot be opened: {error!r}", "see the log")


def blind(gsd_m: float | None) -> Eyes:
    """Returns a scanner without a model: footprints, no detections."""
    return Eyes(Scanner(None, gsd_m))
