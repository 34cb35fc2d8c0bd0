"""An MCP server: assistants make motions by a running `hftrainer serve`. Needs `pip install 'mcp>=2'`.

    hftrainer serve                                             # in one terminal
    python mcp_server.py --server http://127.0.0.1:8000 --out motions      # what the assistant starts, over stdio

A token of the server is read from the variable HFTRAINER_TOKEN. Files are written below the folder `--out` and nowhere
else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

FORMATS = Literal["glb", "bvh", "npz", "npy", "amass", "vrma", "csv", "mp4", "gif", "html"]
SKELETONS = Literal["model", "smpl", "mixamo", "unreal", "unity", "vrm"]


class Part(BaseModel):
    """What is done, and for how long."""

    prompt: str = Field(description="one sentence with a subject, for example: a person walks forward")
    seconds: float = Field(gt=0, le=60)


class Server:
    """A running `hftrainer serve`."""

    def __init__(self, url: str, out: Path, token: str | None = None):
        self.url, self.out, self.token = url.rstrip("/"), out, token

    def call(self, path: str, body: Any = None) -> bytes:
        """GET, or POST of a JSON `body`; `ToolError` with the server's sentence if it refuses."""
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.token}"} if self.token else {}
        )
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=600) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            try:
                said = json.load(error)["message"]
            except (ValueError, KeyError, TypeError):
                said = f"status {error.code}"
            raise ToolError(f"the motion server refused: {said}") from error
        except urllib.error.URLError as error:
            raise ToolError(
                f"no motion server answers at {self.url} ({error.reason}); start one with: hftrainer serve"
            ) from error

    def motions(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Make motions; what an assistant needs to know of each."""
        made = json.loads(self.call("/v1/motions", body))["motions"]
        kept = ("id", "prompt", "seed", "seconds", "frames", "fps", "known", "nearest", "warnings", "error")
        return [
            {name: motion[name] for name in kept if motion.get(name) not in (None, [])}
            | {"viewer": f"{self.url}/v1/motions/{motion['id']}/viewer"}
            for motion in made
        ]


def build(server: Server) -> MCPServer:
    """The tools."""
    mcp = MCPServer(
        "hftrainer",
        instructions="Makes 3D human motion from text: first generate or timeline, then export its id to a file.",
    )

    @mcp.tool()
    def models() -> dict[str, Any]:
        """The models of the server, with their longest motion in seconds, their licence and example prompts."""
        return dict(json.loads(server.call("/v1/models")))

    @mcp.tool()
    def generate(
        prompt: Annotated[str, Field(description="one sentence with a subject, for example: a person waves")],
        seconds: Annotated[float | None, Field(gt=0, description="exact length; left out, the model decides")] = None,
        count: Annotated[int, Field(ge=1, le=16, description="variants")] = 1,
        seed: Annotated[int, Field(ge=0)] = 0,
        model: str | None = None,
    ) -> list[dict[str, Any]]:
        """Make motions of a sentence: ids for `export`, and addresses of pages that play them.

        `known: false` means that the model was not trained on such a prompt; `nearest` are prompts that it knows.
        """
        asked = {"prompt": prompt, "seconds": seconds, "count": count, "seed": seed, "model": model}
        return server.motions(asked)

    @mcp.tool()
    def timeline(
        parts: Annotated[list[Part], Field(min_length=1, max_length=32)], seed: int = 0, model: str | None = None
    ) -> list[dict[str, Any]]:
        """Make one motion of several sentences, one after the other without cuts, each for its seconds."""
        return server.motions({"timeline": [part.model_dump() for part in parts], "seed": seed, "model": model})

    @mcp.tool()
    def export(
        motion: Annotated[str, Field(description="an id that generate or timeline gave")],
        format: FORMATS = "glb",
        skeleton: Annotated[SKELETONS, Field(description="bone names and rest pose")] = "model",
        fps: Literal[24, 30, 60] | None = None,
        loop: bool = False,
        in_place: bool = False,
        root_motion: bool = False,
    ) -> str:
        """Write a motion to a file, and give its path. glb for Blender, Unity, Unreal and the web; amass for robots."""
        if not re.fullmatch(r"[0-9a-f]+-\d+", motion):
            raise ToolError(f"{motion!r} is not the id of a motion; take one that generate or timeline gave")
        asked = {
            "skeleton": skeleton, "fps": fps, "loop": loop, "in_place": in_place, "root_motion": root_motion,
        }  # fmt: skip
        query = urllib.parse.urlencode({name: str(value).lower() for name, value in asked.items() if value})
        content = server.call(f"/v1/motions/{motion}/motion.{format}?{query}")
        server.out.mkdir(parents=True, exist_ok=True)
        options = "_".join(name for name in ("loop", "in_place", "root_motion") if asked[name])
        stem = "_".join(part for part in (motion, skeleton, str(fps or ""), options) if part)
        path = server.out / f"{stem}.{'amass.npz' if format == 'amass' else format}"
        path.write_bytes(content)
        return str(path.resolve())

    return mcp


def main() -> None:
    """Talk to an assistant over stdio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="address of hftrainer serve")
    parser.add_argument("--out", type=Path, default=Path("motions"), help="folder for exported files")
    args = parser.parse_args()
    build(Server(args.server, args.out, os.environ.get("HFTRAINER_TOKEN"))).run("stdio")


if __name__ == "__main__":
    main()
