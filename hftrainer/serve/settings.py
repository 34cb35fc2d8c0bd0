"""The settings of a server."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrainer.defaults import DEFAULT_MODEL


@dataclass(frozen=True)
class Settings:
    """Models by zoo name or folder, where to listen, where results are kept, and limits.

    `jobs`: the folder of results, of which the `keep` newest are kept. `rows`: motions that are decoded together (None:
    as many as are worthwhile and fit). `queue`: motions that may wait for a row. `hosts`: names beside loopback's that
    a request may be addressed to; `origins`: web pages of other servers that may call this one. `load`: options of
    `load_pipeline`. Raises ``ValueError`` for what would not be safe.
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    jobs: Path = Path("out/serve")
    keep: int = 1000
    rows: int | None = None
    queue: int = 1024
    max_prompt: int = 1000
    max_count: int = 16
    max_motions: int = 64
    max_body: int = 1 << 20
    max_seconds: float = 120.0
    max_live: int = 4
    body_seconds: float = 20.0
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    load: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a server needs a model; give --model NAME")
        if not 0 <= self.port < 65536:
            raise ValueError(f"a port lies between 0 and 65535, got {self.port}")
        if not self.is_local and not self.token:
            raise ValueError(
                f"{self.host} can be reached by other machines, so requests must show a token; give one with --token, "
                "or listen on 127.0.0.1"
            )
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or " " in self.token):
            raise ValueError("a token has at least 8 ASCII characters and no blanks")
        for name in ("keep", "queue", "max_prompt", "max_count", "max_motions", "max_body"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
