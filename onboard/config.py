"""The daemon's settings: one TOML file, every key with its unit and a safe default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gossan.settings import Settings, load_settings
from onboard.denoise import Denoise
from onboard.mavlink_rates import DEFAULT_RATES_HZ
from onboard.records import HeightDatum

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class VehicleSettings(Settings):
    """``[vehicle]``: how the autopilot is reached.

    Attributes:
        link: Connection string; empty records frames without a vehicle.
        name: What the aircraft is called in flight folders and on the ground.
        system_id: The vehicle to listen to; 0 takes the first autopilot heard.
        rates_hz: Message rates asked for; 0 leaves one out.
    """

    link: str = ""
    name: str = "drone"
    system_id: int = Field(0, ge=0, le=254)
    rates_hz: dict[str, float] = Field(default_factory=lambda: dict(DEFAULT_RATES_HZ))


class CameraSettings(Settings):
    """``[camera]``: where frames come from.

    Attributes:
        source: ``/dev/video0`` or a number, an ``rtsp://`` address, a GStreamer pipeline (where
            OpenCV was built with it), or ``folder:PATH`` for files named cam_<t_mono_ns>.jpg.
        rate_hz: At most so many frames a second are taken; 0 takes all.
        jpeg_quality: Quality of kept frames where the camera gives no JPEG files.
        latency_s: From the middle row's exposure to the frame's arrival; the rig's
            ``[clock] offset_s`` comes on top.
    """

    source: str = ""
    rate_hz: float = Field(2.0, ge=0.0)
    jpeg_quality: int = Field(92, ge=30, le=100)
    latency_s: float = Field(0.0, ge=0.0, le=10.0)


class RigSettings(Settings):
    """``[rig]``: the calibrated camera and its mount.

    Attributes:
        file: The rig's TOML file.
    """

    file: Path


class TerrainSettings(Settings):
    """``[terrain]``: the ground's height.

    Attributes:
        dem: A GeoTIFF; without one a plane at the take-off height is used, and said so.
        datum: What its heights are above, where the file does not say.
        sigma_m: σ of its heights; without it the rig's default.
    """

    dem: Path | None = None
    datum: HeightDatum | None = None
    sigma_m: float | None = Field(None, ge=0.0)


class ModelSettings(Settings):
    """``[model]``: what looks at the frames.

    Attributes:
        name: A zoo name, a model folder, or ``none`` to record and place only.
        provider: The engine's provider; ``auto`` takes the fastest that gives right answers.
        threads: Threads of the engine; 0 leaves it to the engine.
        sha256: The expected hash of the model's manifest; another model is refused.
        denoise: ``guided`` smooths the orthos of noisy frames (high gain) before the network
            looks; what is kept of frames stays as it is.
    """

    name: str = "surface-rgb"
    provider: str = "auto"
    threads: int = Field(0, ge=0)
    sha256: str = ""
    denoise: Denoise = "none"


class SurveySettings(Settings):
    """``[survey]``: what is to be flown.

    Attributes:
        plan: GeoJSON with the planned area's polygon; coverage is a percentage of it.
        record: ``armed`` records from arming to landing; ``start`` from the daemon's start.
        pose_wait_s: How long a frame waits for the telemetry that brackets it.
        scan_queue: Frames that may wait for the network in flight; more wait until after landing.
        align_every_s: How often the last frames are asked whether the rig sits as it says, in a
            process of lowest priority; 0 never does.
    """

    plan: Path | None = None
    record: Literal["armed", "start"] = "armed"
    pose_wait_s: float = Field(2.0, gt=0.0, le=10.0)
    scan_queue: int = Field(8, ge=1, le=1000)
    align_every_s: float = Field(0.0, ge=0.0)


class StorageSettings(Settings):
    """``[storage]``: where flights are kept.

    Attributes:
        root: Each flight is a folder in it; ``status.json`` lies beside them.
        low_free_mb: Below this much free space health says so; half-way to the critical mark only
            frames in which something was found are kept.
        critical_free_mb: Below this much no frames are kept; rows, alerts and telemetry are.
    """

    root: Path = Path("/var/lib/gossan")
    low_free_mb: float = Field(2000.0, ge=0.0)
    critical_free_mb: float = Field(500.0, ge=0.0)

    @model_validator(mode="after")
    def _ordered(self) -> StorageSettings:
        if self.low_free_mb < self.critical_free_mb:
            raise ValueError("low_free_mb must not be below critical_free_mb")
        return self


class UplinkSettings(Settings):
    """``[uplink]``: the way to the office.

    Attributes:
        url: The ground server; empty sends nothing.
        token_file: A file with the drone's token.
        max_kbit_s: Bandwidth cap; 0 means none.
        server_key_file: A file with the ground's public key (hex), which signs receipts.
    """

    url: str = ""
    token_file: Path | None = None
    max_kbit_s: float = Field(0.0, ge=0.0)
    server_key_file: Path | None = None


class AlertRule(Settings):
    """``[[alerts.rule]]``: a track that meets any rule is told.

    Attributes:
        classes: Class names of the model; empty means all.
        min_probability: Combined probability of its looks.
        min_looks: Frames that saw it.
        max_ce90_m: Radius that holds it with 90 %.
        min_area_m2: Median area of its looks.
        severity: ``warning`` is spoken by ground stations, ``notice`` by QGroundControl only,
            ``info`` is silent.
        out_of_distribution: Whether doubted looks may raise it.
    """

    classes: tuple[str, ...] = ()
    min_probability: Fraction = 0.6
    min_looks: int = Field(2, ge=1)
    max_ce90_m: Positive = 30.0
    min_area_m2: float = Field(0.0, ge=0.0)
    severity: Literal["warning", "notice", "info"] = "warning"
    out_of_distribution: bool = False


class AlertSettings(Settings):
    """``[alerts]``: what the crew is told in flight.

    Attributes:
        statustext: Whether alerts go to the ground station as STATUSTEXT.
        min_interval_s: At most one text in so many seconds; what waits is merged.
        values: Whether found, coverage and queue go out as NAMED_VALUE_FLOAT.
        image_dots: Whether kept frames go out as CAMERA_IMAGE_CAPTURED.
        cot: ``HOST:PORT`` that gets alerts as Cursor on Target over UDP; empty sends none.
        words: What classes are called in texts.
        rule: The rules.
    """

    statustext: bool = True
    min_interval_s: float = Field(3.0, ge=3.0)
    values: bool = True
    image_dots: bool = True
    cot: str = ""
    words: dict[str, str] = Field(default_factory=dict)
    rule: tuple[AlertRule, ...] = (AlertRule(),)  # type: ignore[call-arg]


class OnboardSettings(Settings):
    """The whole file."""

    vehicle: VehicleSettings = VehicleSettings()  # type: ignore[call-arg]
    camera: CameraSettings = CameraSettings()  # type: ignore[call-arg]
    rig: RigSettings
    terrain: TerrainSettings = TerrainSettings()  # type: ignore[call-arg]
    model: ModelSettings = ModelSettings()  # type: ignore[call-arg]
    survey: SurveySettings = SurveySettings()  # type: ignore[call-arg]
    storage: StorageSettings = StorageSettings()  # type: ignore[call-arg]
    uplink: UplinkSettings = UplinkSettings()  # type: ignore[call-arg]
    alerts: AlertSettings = AlertSettings()  # type: ignore[call-arg]


def load_onboard(path: Path) -> OnboardSettings:
    """Returns the daemon's settings; relative paths count from the file's folder.

    Raises:
        SettingsError: The file, a key or a value is refused.
    """
    settings = load_settings(path, OnboardSettings)
    base = path.resolve().parent
    return settings.model_copy(
        update={
            "rig": _rebased(settings.rig, base, "file"),
            "terrain": _rebased(settings.terrain, base, "dem"),
            "survey": _rebased(settings.survey, base, "plan"),
            "storage": _rebased(settings.storage, base, "root"),
            "uplink": _rebased(settings.uplink, base, "token_file", "server_key_file"),
        }
    )


def _rebased(table: Settings, base: Path, *keys: str) -> Settings:
    """Returns the table with its relative paths counted from ``base``."""
    paths = {key: getattr(table, key) for key in keys}
    return table.model_copy(
        update={key: (base / path).resolve() for key, path in paths.items() if path is not None}
    )
