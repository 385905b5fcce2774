"""``gossan groundsync serve``: receive flights and show the map."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
from pathlib import Path

import click

from gossan.console import log_to_stderr, say
from gossan.errors import HardwareError, UserError


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The project folder; made where it is missing.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8700,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option("--add-drone", metavar="NAME", help="Print a new token for a drone, then exit.")
@click.option("--tls-cert", type=click.Path(exists=True, path_type=Path), help="Certificate, PEM.")
@click.option("--tls-key", type=click.Path(exists=True, path_type=Path), help="Its key, PEM.")
def serve(
    data: Path,
    host: str,
    port: int,
    add_drone: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Receive flights and show the map.

    Drones send with a token each (--add-drone NAME prints one, once). The map is open to this
    machine; on any other address it asks once for the token printed at the start.
    """
    from groundsync.tokens import Tokens

    if add_drone:
        click.echo(Tokens(data / "keys").create(add_drone))
        return
    if (tls_cert is None) != (tls_key is None):
        raise UserError("--tls-cert and --tls-key go together", "give both or neither")
    log_to_stderr(logging.INFO)
    _serve(data, host, port, tls_cert, tls_key)


def _serve(data: Path, host: str, port: int, cert: Path | None, key: Path | None) -> None:
    import uvicorn

    from gossan.notify import sd_notify
    from groundsync.receive import routes
    from groundsync.server import BUNDLE, create_app

    listening = _listen(host, port)
    port = listening.getsockname()[1]
    token = "" if _is_loopback(host) else secrets.token_urlsafe(16)
    app = create_app(data, routes(data), token)
    scheme = "https" if cert else "http"
    say(f"map    {scheme}://{host}:{port}/{f'?token={token}' if token else ''}")
    say(f"sync   {scheme}://{host}:{port}/sync")
    if not (BUNDLE / "index.html").is_file():
        say("the map page was not built into this installation; its address says how to build it")
    if token and not cert:
        say("this address is not encrypted: use --tls-cert and --tls-key, or a VPN, on a real link")
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ssl_certfile=cert,
        ssl_keyfile=key,
        timeout_graceful_shutdown=5,
    )
    sd_notify("READY=1")
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Returns a socket bound to the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise HardwareError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            "another program may use the port: give --port",
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
