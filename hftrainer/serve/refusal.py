"""Why a request is refused: a status, a word for programs and a sentence for people."""

from __future__ import annotations

from starlette.responses import JSONResponse


def one_line(error: Exception) -> str:
    """The message of an error, whose lines become one."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


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
