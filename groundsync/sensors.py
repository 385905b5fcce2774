"""How well each model of a project sees each of its classes, and where that is only assumed."""

from __future__ import annotations

from collections.abc import Sequence

from gossan.errors import GossanError
from groundsync.flown import Flown
from groundsync.ledger import Sensor, sensor_of
from models.manifest import Detectability, Manifest
from models.registry import open_model

UNKNOWN_P_DETECT = 0.5
UNKNOWN_FALSE_ALARMS_PER_KM2 = 5.0
LEAST_FALSE_ALARMS_PER_KM2 = 0.1
"""None in a finite trial is not none ever."""


def sensors_of(flown: Sequence[Flown]) -> tuple[dict[tuple[str, str], Sensor], list[str]]:
    """Returns the sensors by (model hash, class), and notes on what is assumed."""
    sensors: dict[tuple[str, str], Sensor] = {}
    notes = []
    for model_hash, name in sorted({(f.row.model_hash, f.header.model_name) for f in flown}):
        if not model_hash:
            notes.append("a flight was not scanned: it counts as no look anywhere")
            continue
        manifest = _manifest(name, model_hash)
        if manifest is None:
            notes.append(
                f"model {name} ({model_hash[:8]}) is not at hand: how well it sees is assumed"
                f" (p = {UNKNOWN_P_DETECT}, {UNKNOWN_FALSE_ALARMS_PER_KM2:g} false alarms per km²)"
            )
        classes = manifest.report_classes if manifest else _classes_of(flown, model_hash)
        for class_name in classes:
            known = manifest.detectability.get(class_name) if manifest else None
            sensors[model_hash, class_name] = _sensor(model_hash, class_name, known)
    return sensors, notes


def _manifest(name: str, model_hash: str) -> Manifest | None:
    """Returns the manifest of a flown model; flights name it with its version behind it."""
    for candidate in (name, name.rpartition(" ")[0] or name):
        try:
            model = open_model(candidate)
        except GossanError:
            continue
        if model.hash == model_hash:
            return model.manifest
    return None


def _sensor(model_hash: str, class_name: str, known: Detectability | None) -> Sensor:
    if known is None:
        return Sensor(
            model_hash, class_name, UNKNOWN_P_DETECT, UNKNOWN_FALSE_ALARMS_PER_KM2, "assumed"
        )
    by_size = known.p_detect_by_size_m2 or {"0": known.p_detect}
    alarms = max(known.false_alarms_per_km2, LEAST_FALSE_ALARMS_PER_KM2)
    return sensor_of(model_hash, class_name, by_size, alarms, known.source)


def _classes_of(flown: Sequence[Flown], model_hash: str) -> tuple[str, ...]:
    names = {t.class_name for f in flown if f.row.model_hash == model_hash for t in f.tracks}
    return tuple(sorted(names))
