"""ComfyUI nodes for a running `hftrainer serve`: text to motion, timelines, files, and pictures for video models.

Copy this file to ``ComfyUI/custom_nodes/``. The nodes need nothing that ComfyUI does not have. Start the server with
``hftrainer serve``; the address of another one, and its token, are inputs of the nodes.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

SERVER = "http://127.0.0.1:8000"
FORMATS = ["glb", "bvh", "npz", "amass", "vrma", "csv", "mp4", "npy"]
SKELETONS = ["model", "smpl", "mixamo", "unreal", "unity", "vrm"]


def call(server: str, token: str, path: str, body: Any = None) -> bytes:
    """GET, or POST of a JSON `body`; a RuntimeError with the server's sentence if it refuses."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(
        server.rstrip("/") + path, None if body is None else json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            text = json.loads(text)["message"]
        except (ValueError, KeyError, TypeError):
            pass
        raise RuntimeError(f"hftrainer serve: {text}") from error
    except urllib.error.URLError as error:
        raise RuntimeError(f"no hftrainer server at {server} ({error.reason}); start one: hftrainer serve") from error


def read_timeline(text: str) -> list[dict[str, Any]]:
    """``3.5 a person walks forward`` a line, as the server wants it."""
    parts = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s+(\S.*)", line)
        if match is None or float(match[1]) == 0:
            raise ValueError(f"line {number} of the timeline must be seconds and a sentence, got {line!r}")
        parts.append({"seconds": float(match[1]), "prompt": match[2].strip()})
    if not parts:
        raise ValueError("the timeline is empty; write seconds and a sentence on each line")
    return parts


def output_folder() -> str:
    """ComfyUI's output folder."""
    try:
        import folder_paths  # ComfyUI's own module

        return str(folder_paths.get_output_directory())
    except ImportError:
        return tempfile.gettempdir()


_ADDRESS = {"server": ("STRING", {"default": SERVER}), "token": ("STRING", {"default": ""})}
_SEED = ("INT", {"default": 0, "min": 0, "max": 2**63 - 1})


class TextToMotion:
    """A motion of a sentence."""

    CATEGORY, FUNCTION, RETURN_TYPES = "hftrainer", "make", ("HFT_MOTION", "STRING")
    RETURN_NAMES = ("motion", "remarks")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI asks for this."""
        prompt = ("STRING", {"multiline": True, "default": "a person walks forward"})
        seconds = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 60.0, "step": 0.5, "tooltip": "0: the model decides"})
        return {
            "required": {"prompt": prompt, "seconds": seconds, "seed": _SEED},
            "optional": {"model": ("STRING", {"default": ""}), **_ADDRESS},
        }

    def make(
        self, prompt: str, seconds: float, seed: int, model: str = "", server: str = SERVER, token: str = ""
    ) -> tuple[dict[str, Any], str]:
        """Make it."""
        asked = {"prompt": prompt, "seconds": seconds or None, "seed": seed, "model": model or None}
        return made(asked, server, token)


class MotionTimeline:
    """One motion of several sentences: seconds and a sentence a line."""

    CATEGORY, FUNCTION, RETURN_TYPES = "hftrainer", "make", ("HFT_MOTION", "STRING")
    RETURN_NAMES = ("motion", "remarks")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI asks for this."""
        example = "3 a person walks forward\n2 someone runs\n3 a person takes a bow"
        return {
            "required": {"timeline": ("STRING", {"multiline": True, "default": example}), "seed": _SEED},
            "optional": {"model": ("STRING", {"default": ""}), **_ADDRESS},
        }

    def make(
        self, timeline: str, seed: int, model: str = "", server: str = SERVER, token: str = ""
    ) -> tuple[dict[str, Any], str]:
        """Make it."""
        return made({"timeline": read_timeline(timeline), "seed": seed, "model": model or None}, server, token)


def made(asked: dict[str, Any], server: str, token: str) -> tuple[dict[str, Any], str]:
    """The first motion of an answer, and what the server remarks on it."""
    motion = json.loads(call(server, token, "/v1/motions", asked))["motions"][0]
    if motion.get("error"):
        raise RuntimeError(f"hftrainer serve: {motion['error']}")
    return {"id": motion["id"], "server": server, "token": token}, "\n".join(motion.get("warnings", []))


def fetch(motion: dict[str, Any], ending: str, **options: Any) -> bytes:
    """A file of a motion."""
    query = urllib.parse.urlencode({name: str(value).lower() for name, value in options.items() if value})
    return call(motion["server"], motion["token"], f"/v1/motions/{motion['id']}/motion.{ending}?{query}")


class SaveMotion:
    """Write a motion to ComfyUI's output folder; the path goes to nodes that load 3D files."""

    CATEGORY, FUNCTION, OUTPUT_NODE = "hftrainer", "save", True
    RETURN_TYPES, RETURN_NAMES = ("STRING",), ("path",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI asks for this."""
        switches = {name: ("BOOLEAN", {"default": False}) for name in ("loop", "in_place", "root_motion")}
        named = {"name": ("STRING", {"default": "motion"}), "format": (FORMATS,), "skeleton": (SKELETONS,)}
        return {"required": {"motion": ("HFT_MOTION",), **named, **switches}}

    def save(self, motion: dict[str, Any], name: str, format: str, skeleton: str, **switches: bool) -> tuple[str]:
        """Fetch and write it."""
        content = fetch(motion, format, skeleton=skeleton, **switches)
        stem = re.sub(r"[^\w-]+", "_", name).strip("_") or "motion"
        ending = "amass.npz" if format == "amass" else format
        path = os.path.join(output_folder(), f"{stem}_{motion['id']}.{ending}")
        with open(path, "wb") as file:
            file.write(content)
        return (path,)


class MotionToImages:
    """The mannequin's pictures, (frames, height, width, 3) from 0 to 1, as a guide for video models."""

    CATEGORY, FUNCTION, RETURN_TYPES = "hftrainer", "draw", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """ComfyUI asks for this."""
        return {"required": {"motion": ("HFT_MOTION",)}}

    def draw(self, motion: dict[str, Any]) -> tuple[Any]:
        """Fetch and decode them."""
        import numpy as np
        import torch
        from PIL import Image, ImageSequence

        frames = ImageSequence.Iterator(Image.open(io.BytesIO(fetch(motion, "gif"))))
        return (torch.from_numpy(np.stack([np.asarray(frame.convert("RGB"), np.float32) / 255 for frame in frames])),)


_NODES = (TextToMotion, MotionTimeline, SaveMotion, MotionToImages)
NODE_CLASS_MAPPINGS = {f"HFTrainer{node.__name__}": node for node in _NODES}
NODE_DISPLAY_NAME_MAPPINGS = {
    "HFTrainerTextToMotion": "Text to Motion", "HFTrainerMotionTimeline": "Motion Timeline",
    "HFTrainerSaveMotion": "Save Motion", "HFTrainerMotionToImages": "Motion to Images",
}  # fmt: skip
