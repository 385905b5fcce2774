"""systemd's notification protocol: ready, status and watchdog, over one datagram socket."""

from __future__ import annotations

import os
import socket


def sd_notify(*lines: str) -> bool:
    """Sends lines such as ``READY=1`` to systemd; returns whether anybody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True


def watchdog_s() -> float:
    """Returns systemd's watchdog interval in seconds; 0 where there is none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(os.environ.get("WATCHDOG_USEC", "0") or 0) * 1e-6
