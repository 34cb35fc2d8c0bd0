"""Why a request is refused: a status, a word for programs and a sentence for people."""

from __future__ import annotations

import errno
import os

from starlette.responses import JSONResponse

BUG = "internal error of the server; see its log"
_STORAGE = "the server cannot write its files"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def one_line(error: Exception) -> str:
    """The message of an error, whose lines become one."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def told(error: BaseException) -> str:
    """What a client hears of an error. Paths and the rest are in the log only."""
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"{_STORAGE}: {os.strerror(error.errno).lower()}"
    return BUG


def kind_of(message: str) -> str:
    """The word for programs of what `told` said."""
    return "internal" if message == BUG else "storage" if message.startswith(_STORAGE) else "no_motion"


class Refusal(Exception):
    """Becomes ``{"error": kind, "message": message}`` with `status`."""

    def __init__(self, status: int, kind: str, message: str, *, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.kind, self.message, self.retry_after = status, kind, message, retry_after

    def as_dict(self) -> dict[str, str]:
        """What is sent, and kept with a job."""
        return {"error": self.kind, "message": self.message}

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse(self.as_dict(), self.status, headers=headers)
