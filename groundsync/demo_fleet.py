"""The demo's processes: started, watched, asked to end; each one's log in a file of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from gossan.errors import HardwareError

END_S = 20.0


@dataclass
class Fleet:
    """Processes of this installation's own commands.

    Attributes:
        logs: Folder of their logs.
        running: By name.
    """

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in reversed(list(self.running)):
            self.end(name)

    def start(self, name: str, *arguments: object) -> None:
        """Starts ``gossan …`` under a name; its output goes to ``<name>.log``."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command(*arguments),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,
            )

    def end(self, name: str) -> int:
        """Asks a process to end, insists after a while, and returns its exit code."""
        process = self.running.pop(name)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def wait(self, name: str, timeout_s: float) -> int:
        """Waits until a process ends by itself and returns its exit code.

        Raises:
            HardwareError: It did not end in time.
        """
        try:
            code = self.running[name].wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise HardwareError(
                f"{name} did not end within {timeout_s:.0f} s", f"see {self.logs / name}.log"
            ) from error
        del self.running[name]
        return code

    def wait_until(self, name: str, ready: Callable[[], bool], timeout_s: float) -> None:
        """Waits until something is ready that a process prepares.

        Raises:
            HardwareError: The process ended before, or it took too long.
        """
        ends = time.monotonic() + timeout_s
        while not ready():
            if self.running[name].poll() is not None or time.monotonic() > ends:
                tail = (self.logs / f"{name}.log").read_text(errors="replace")[-1500:]
                raise HardwareError(f"{name} did not get ready:\n{tail}", f"see {self.logs}")
            time.sleep(0.2)


def command(*arguments: object) -> list[str]:
    """Returns the command line of ``gossan`` with these arguments, in this installation."""
    return [sys.executable, "-m", "gossan", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Returns the environment of all processes: unbuffered, one thread per numeric library."""
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}


def run_gossan(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and returns what it printed."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment()
    )


def free_port(kind: socket.SocketKind) -> int:
    """Returns a port of this machine that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class GroundStation(threading.Thread):
    """A ground station that only listens: what the crew reads and hears.

    Attributes:
        texts: (severity, text) of every STATUSTEXT from the companion.
    """

    def __init__(self, port: int, hear: Callable[[int, str], None]) -> None:
        super().__init__(name="ground-station", daemon=True)
        self.texts: list[tuple[int, str]] = []
        self._hear = hear
        self._done = threading.Event()
        self._port = port

    def run(self) -> None:
        """Listens until told to stop."""
        os.environ.setdefault("MAVLINK20", "1")
        from pymavlink.dialects.v20 import ardupilotmega as mavlink

        parser = mavlink.MAVLink(None)
        parser.robust_parsing = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            channel.bind(("127.0.0.1", self._port))
            channel.settimeout(0.5)
            while not self._done.is_set():
                try:
                    data = channel.recv(2048)
                except TimeoutError:
                    continue
                for message in parser.parse_buffer(data) or ():
                    if (
                        message.get_type() == "STATUSTEXT"
                        and message.get_srcComponent() == mavlink.MAV_COMP_ID_ONBOARD_COMPUTER
                    ):
                        self.texts.append((message.severity, message.text))
                        self._hear(message.severity, message.text)

    def stop(self) -> None:
        """Ends the listening."""
        self._done.set()
        self.join(2.0)
