"""The front door: one command group that mounts every command by name and imports it on use."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from gossan.console import report_error
from gossan.errors import GossanError, HardwareError, MissingExtraError, NotBuiltError, UserError

PACKAGES = ("calibration", "models", "onboard", "groundsync")


FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
FULL_DISK_HINT = "free some room on that disk, or write to another"


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a command's code lives: ``module:attribute``; or why it is not built yet."""

    target: str
    help: str
    not_built: str = ""


TOP: dict[str, Mount] = {
    "demo": Mount("groundsync.demo:demo", "A simulated survey end to end on this machine."),
    "bench": Mount("onboard.bench:bench", "Every stage against its floor on this machine."),
}

BENCHES: dict[str, Mount] = {
    "survey": Mount("groundsync.bench_survey:survey", "Simulated flights against planted truth."),
}
"""What ``gossan bench`` measures beyond single stages, one floor up."""

GROUPS: dict[str, tuple[str, dict[str, Mount]]] = {
    "calibration": (
        "Cameras, mounts, clocks and radiometry.",
        {
            "board": Mount("calibration.cli:board", "Camera model from photos of a board."),
            "resect": Mount("calibration.cli:resect", "Pose of a frame from control points."),
            "align": Mount("onboard.cli.align:align_command", "Boresight and clock from overlaps."),
            "radiometry": Mount(
                "calibration.radiometry_cli:radiometry",
                "Dark level, vignette, panel to reflectance.",
            ),
        },
    ),
    "models": (
        "Train, quantize, prove and run the networks.",
        {
            "train": Mount("models.cli:train", "Train a network on labelled data."),
            "pretrain": Mount("", "Self-supervised pretraining.", not_built="pretrain"),
            "quantize": Mount("models.cli:quantize", "INT8 files of a trained model."),
            "evaluate": Mount("models.cli:evaluate", "Measure a model on a labelled dataset."),
            "predict": Mount("models.cli:predict", "Masks and regions of images."),
            "export": Mount("models.cli:export", "A trained checkpoint as a model folder."),
            "verify": Mount("models.cli:verify", "Check a model's files against its manifest."),
            "list": Mount("models.cli:list_models", "The models at hand."),
        },
    ),
    "onboard": (
        "The drone: fly, inspect, replay, orthocorrect, geotag.",
        {
            "run": Mount(
                "onboard.cli.daemon:run", "The daemon: record, place, scan, store, alert."
            ),
            "uplink": Mount(
                "onboard.cli.daemon:uplink", "The second daemon: send what is recorded."
            ),
            "inspect": Mount("onboard.cli.inspect:inspect", "What is there, and what looks wrong."),
            "replay": Mount(
                "onboard.cli.replay:replay", "A recorded flight through the same code."
            ),
            "ortho": Mount("onboard.cli.ortho:ortho", "One orthocorrected GeoTIFF per frame."),
            "refine": Mount(
                "onboard.cli.align:refine_command", "Better poses from a flight's overlaps."
            ),
            "stamp": Mount(
                "onboard.cli.stamp:stamp", "Poses into copies of the frames, and geo.txt."
            ),
            "geotag": Mount("onboard.cli.geotag:geotag", "Pixels to coordinates with covariance."),
            "simulate": Mount(
                "onboard.cli.simulate:simulate", "A flight or training set of known truth."
            ),
            "doctor": Mount("onboard.cli.doctor:doctor", "Is everything ready to fly?"),
            "status": Mount("onboard.cli.daemon:status", "What the daemon does right now."),
            "config": Mount("onboard.cli.daemon:config", "The effective settings of the daemon."),
        },
    ),
    "groundsync": (
        "The office: receive, fuse, rank, export, show.",
        {
            "serve": Mount("groundsync.cli.serve:serve", "Receive flights and show the map."),
            "enroll": Mount("", "A drone's own key and certificate.", not_built="enroll"),
            "ingest": Mount(
                "groundsync.cli.ingest:ingest", "Flight folders or photos into a project."
            ),
            "fuse": Mount(
                "groundsync.cli.project:fuse", "Targets, posterior and ranking of a project."
            ),
            "prior": Mount(
                "groundsync.cli.prior:prior", "Weights and a prior map from geology layers."
            ),
            "plan": Mount("", "Where to fly next.", not_built="plan"),
            "export": Mount("groundsync.cli.project:export", "GeoPackage, GeoJSON and CSV."),
            "report": Mount("groundsync.cli.project:report", "A one-page report of the project."),
            "doctor": Mount(
                "groundsync.cli.doctor:doctor", "Is this machine ready to be the office?"
            ),
        },
    ),
}

NOT_BUILT_HINTS = {
    "pretrain": "train on labelled data: gossan models train --help",
    "enroll": "use one token per drone: gossan groundsync serve --help",
    "plan": "gossan groundsync report names the coverage gaps to fly",
}

EXTRA_OF_MODULE = {
    "onnxruntime": "cpu",
    "torch": "train",
    "onnx": "train",
    "onnxscript": "train",
    "geopandas": "ground",
    "jinja2": "ground",
    "pyogrio": "ground",
    "sklearn": "ground",
    "starlette": "ground",
    "uvicorn": "ground",
}


class MountedGroup(click.Group):
    """A click group whose commands are imported only when they are called."""

    def __init__(self, name: str, help_text: str, mounts: dict[str, Mount]) -> None:
        super().__init__(name=name, help=help_text)
        self.mounts = mounts

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Returns the mounted names in their order."""
        return list(self.mounts)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Returns the command, importing its module."""
        mount = self.mounts.get(cmd_name)
        if mount is None:
            return None
        return _not_built(cmd_name, mount) if mount.not_built else _load(mount)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, mount.help) for name, mount in self.mounts.items()])


class BenchGroup(MountedGroup):
    """``gossan bench``: the stages by itself, a larger measurement by name."""

    def __init__(self, stages: click.Command) -> None:
        super().__init__("bench", stages.help or "", BENCHES)
        self.params = list(stages.params)
        self.invoke_without_command = True
        self.no_args_is_help = False
        self.callback = self._run_stages
        self._stages = stages

    def _run_stages(self, **options: object) -> None:
        if click.get_current_context().invoked_subcommand is None and self._stages.callback:
            self._stages.callback(**options)


class FrontDoor(click.Group):
    """The top group: the folders' groups, then the commands that span them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Returns groups and top commands."""
        return [*GROUPS, *TOP]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Returns a group, or a top command imported on use."""
        if cmd_name in GROUPS:
            help_text, mounts = GROUPS[cmd_name]
            return MountedGroup(cmd_name, help_text, mounts)
        if cmd_name == "bench":
            return BenchGroup(_load(TOP["bench"]))
        return _load(TOP[cmd_name]) if cmd_name in TOP else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the list of groups and commands without importing any."""
        rows = [(name, text) for name, (text, _) in GROUPS.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows + [(name, mount.help) for name, mount in TOP.items()])


@click.group(cls=FrontDoor, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gossan")
def gossan() -> None:
    """Survey software for drones that look for minerals and other things written on the ground.

    Results go to stdout, progress to stderr. Exit codes: 0 ok, 1 something given cannot be used,
    2 usage, 3 hardware or link, 4 damaged data, 5 not built yet.
    """


def main() -> None:
    """Runs the command line and exits with the error tree's exit code."""
    try:
        keep_strangers_out()
        gossan.main(standalone_mode=True)
    except GossanError as error:
        sys.exit(report_error(error))
    except OSError as error:
        if error.filename is None and error.errno not in FULL_DISK:
            raise
        sys.exit(report_error(_of_files(error)))
    except sqlite3.OperationalError as error:
        if "disk is full" not in str(error):
            raise
        sys.exit(report_error(HardwareError(f"writing a database: {error}", FULL_DISK_HINT)))


def _of_files(error: OSError) -> GossanError:
    """Returns what the system refused about a file as an error that a person can act on."""
    message = f"{error.filename or 'writing'}: {error.strerror}"
    if error.errno in FULL_DISK:
        return HardwareError(message, FULL_DISK_HINT)
    return UserError(message, "check the path and its permissions, or give another")


def keep_strangers_out() -> None:
    """Makes sure that our packages are ours, not folders of the same name in the working folder.

    Raises:
        UserError: A stranger's package of one of our names is already imported.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        if name in sys.modules and not _is_at(sys.modules[name].__file__, home):
            raise UserError(
                f"the package '{name}' comes from {sys.modules[name].__file__}, not {home}",
                "start gossan from another folder, or without PYTHONPATH",
            )
        spec = importlib.util.find_spec(name)
        if spec is None or not _is_at(spec.origin, home):
            sys.path.insert(0, str(home))
            importlib.invalidate_caches()


def _is_at(origin: str | None, home: Path) -> bool:
    return origin is not None and Path(origin).resolve().parent.parent == home


def _load(mount: Mount) -> click.Command:
    module, _, attribute = mount.target.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root not in EXTRA_OF_MODULE:
            raise
        raise MissingExtraError(
            f"this command needs '{root}', which is not installed",
            f"pip install 'gossan[{EXTRA_OF_MODULE[root]}]'",
        ) from error
    assert isinstance(command, click.Command)  # noqa: S101
    return command


def _not_built(name: str, mount: Mount) -> click.Command:
    @click.command(
        name,
        help=f"{mount.help} (not built yet)",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    @click.argument("arguments", nargs=-1)
    def refuse(arguments: tuple[str, ...]) -> None:  # noqa: ARG001
        raise NotBuiltError(f"'{name}' is not built yet", NOT_BUILT_HINTS[mount.not_built])

    return refuse
