"""The server's process."""

from __future__ import annotations

import socket
import sys

import uvicorn
from fastapi import FastAPI

from hftrainer.serve.app import create_app
from hftrainer.serve.connections import HeadInTime
from hftrainer.serve.settings import Settings

_BACKLOG = 2048
_SWITCH = 0.0005  # seconds after which a thread lets another run; the engine's many short calls wait for it


def serve(settings: Settings) -> int:
    """Serve until interrupted; ``ValueError`` if the address cannot be had."""
    listening = _listen(settings)
    app = create_app(settings)
    sys.setswitchinterval(_SWITCH)
    names = ", ".join(served.name for served in app.state.service.models)
    print(f"{names} at {_address(settings, listening)} (Ctrl-C ends)", flush=True)
    uvicorn.Server(config_of(app)).run(sockets=[listening])
    return 0


def config_of(app: FastAPI) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, backlog=_BACKLOG, http=HeadInTime,
        timeout_graceful_shutdown=3, ws_max_size=1 << 16, ws_ping_interval=20.0,
    )  # fmt: skip


def _listen(settings: Settings) -> socket.socket:
    """The socket, before models are loaded: a port that is taken is found at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise ValueError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; choose another with --port"
        ) from error
    listening.listen(_BACKLOG)
    return listening


def _address(settings: Settings, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    token = "?token=..." if settings.token else ""
    return f"http://{host}:{port}/{token}"
