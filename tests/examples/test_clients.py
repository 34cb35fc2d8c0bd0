"""The programs of examples/clients, each against the real server on loopback with a tiny model."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hftrainer.pipelines.motionmillion import MotionMillionPipeline
from hftrainer.requests import SamplingParams
from tests.conftest import REPOSITORY

CLIENTS = REPOSITORY / "examples" / "clients"
TOKEN = "a-token-of-tests"


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that wants TOKEN."""
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `serve`")
    from hftrainer.serve.app import create_app
    from hftrainer.serve.settings import Settings

    pipe = MotionMillionPipeline.from_pretrained(tiny_model, max_sample_steps=60)
    pipe.sampling = SamplingParams(do_sample=True, temperature=1.0)
    settings = Settings(jobs=tmp_path_factory.mktemp("jobs"), rows=4, token=TOKEN)
    running = uvicorn.Server(uvicorn.Config(create_app(settings, {"tiny": pipe}), port=0, log_level="warning"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(timeout=30)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CLIENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(CLIENTS.glob("*.py")), ids=lambda path: path.name)
def test_clients_are_thin_and_need_nothing_of_ours(path):
    text = path.read_text()
    assert len(text.splitlines()) < 200
    assert not re.search(r"^\s*(?:from|import) hftrainer", text, flags=re.M)


def test_the_ten_lines_of_the_page(server, tmp_path, monkeypatch, capsys):
    page = (REPOSITORY / "docs" / "serving.md").read_text()
    code = re.search(r"in ten lines.*?\n\n```python\n(.*?)```", page, flags=re.S)[1]
    code = code.replace("http://127.0.0.1:8000", server)
    code = code.replace('{"Content-Type": "application/json"}', f'{{"Content-Type": "application/json", {_header()}}}')
    code = code.replace('motion["files"]["glb"]', f'motion["files"]["glb"] + "?token={TOKEN}"')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "serving.md", "exec", dont_inherit=True), {})
    files = list(tmp_path.glob("*.glb"))
    assert len(files) == 4
    assert all(path.read_bytes()[:4] == b"glTF" for path in files)


def _header() -> str:
    return f'"Authorization": "Bearer {TOKEN}"'


# --- ComfyUI --------------------------------------------------------------------------------------------------------


def test_comfyui_makes_saves_and_draws(server, tmp_path, monkeypatch):
    nodes = load("comfyui_node")
    folders = ModuleType("folder_paths")
    folders.get_output_directory = lambda: str(tmp_path)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "folder_paths", folders)
    make, save = nodes.TextToMotion(), nodes.SaveMotion()
    motion, remarks = make.make("a person walks", 1.0, 3, server=server, token=TOKEN)
    assert isinstance(remarks, str)
    path = Path(save.save(motion, "a walk/..", "glb", "unreal", loop=False, in_place=True, root_motion=False)[0])
    assert path.parent == tmp_path
    assert path.read_bytes()[:4] == b"glTF"
    timeline, _ = nodes.MotionTimeline().make("1 a person walks\n\n0.5 someone runs\n", 0, server=server, token=TOKEN)
    assert timeline["id"] != motion["id"]
    pytest.importorskip("PIL", reason="needs the extra `viz`")
    (images,) = nodes.MotionToImages().draw(motion)
    assert images.ndim == 4
    assert images.shape[-1] == 3
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_comfyui_finds_every_input_that_a_node_takes():
    import inspect

    nodes = load("comfyui_node")
    assert set(nodes.NODE_DISPLAY_NAME_MAPPINGS) == set(nodes.NODE_CLASS_MAPPINGS)
    for node in nodes.NODE_CLASS_MAPPINGS.values():
        taken = inspect.signature(getattr(node, node.FUNCTION)).parameters
        given = {name for group in node.INPUT_TYPES().values() for name in group}
        open_ended = any(value.kind is inspect.Parameter.VAR_KEYWORD for value in taken.values())
        named = {name for name, value in taken.items() if value.kind is not inspect.Parameter.VAR_KEYWORD} - {"self"}
        assert named <= given
        assert open_ended or given == named


@pytest.mark.parametrize("text", ["", "a person walks", "0 a person walks", "x 3", "2"])
def test_comfyui_refuses_what_is_no_timeline(text):
    with pytest.raises(ValueError, match=r"timeline"):
        load("comfyui_node").read_timeline(text)


def test_comfyui_says_what_the_server_said(server):
    node = load("comfyui_node").TextToMotion()
    with pytest.raises(RuntimeError, match="token"):
        node.make("a person walks", 1.0, 0, server=server, token="wrong-token")
    with pytest.raises(RuntimeError, match=r"cannot be generated|up to"):
        node.make("a person walks", 59.0, 0, server=server, token=TOKEN)
    with pytest.raises(RuntimeError, match="hftrainer serve"):
        node.make("a person walks", 1.0, 0, server="http://127.0.0.1:9", token=TOKEN)


# --- MCP ------------------------------------------------------------------------------------------------------------


def ask(server: str, out: Path, calls: list[tuple[str, dict[str, Any]]], token: str = TOKEN) -> list[Any]:
    """Results of tools that a client in memory calls one by one; an argument may be a function of earlier results."""
    pytest.importorskip("mcp.server.mcpserver", reason="pip install 'mcp>=2'")
    from mcp.client.client import Client

    program = load("mcp_server")

    async def talk() -> list[Any]:
        results: list[Any] = []
        async with Client(program.build(program.Server(server, out, token))) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {
                "models", "generate", "timeline", "export",
            }  # fmt: skip
            for name, arguments in calls:
                given = {key: value(results) if callable(value) else value for key, value in arguments.items()}
                results.append(await client.call_tool(name, given))
        return results

    return asyncio.run(talk())


def told(result: Any) -> Any:
    assert not result.is_error, result.content
    return result.structured_content["result"] if "result" in result.structured_content else result.structured_content


def test_an_assistant_generates_and_exports(server, tmp_path):
    def first(results):
        return told(results[1])[0]["id"]

    parts = [{"prompt": "a person walks", "seconds": 1}, {"prompt": "someone runs", "seconds": 0.5}]
    results = ask(server, tmp_path / "motions", [
        ("models", {}),
        ("generate", {"prompt": "a person walks", "seconds": 1.0, "count": 2, "seed": 5}),
        ("export", {"motion": first, "format": "bvh", "skeleton": "mixamo"}),
        ("export", {"motion": first, "format": "amass"}),
        ("timeline", {"parts": parts}),
    ])  # fmt: skip
    assert told(results[0])["default"] == "tiny"
    assert [motion["seed"] for motion in told(results[1])] == [5, 6]
    assert all(motion["seconds"] == 1.0 for motion in told(results[1]))
    bvh, amass = (Path(told(result)) for result in results[2:4])
    assert bvh.parent == amass.parent == (tmp_path / "motions").resolve()
    assert bvh.read_text().startswith("HIERARCHY")
    assert amass.name.endswith(".amass.npz")
    assert told(results[4])[0]["seconds"] == 1.5


def test_an_assistant_is_told_what_is_wrong(server, tmp_path):
    results = ask(server, tmp_path, [
        ("export", {"motion": "../../etc/passwd"}),
        ("export", {"motion": "0" * 24 + "-0"}),
        ("generate", {"prompt": "   "}),
    ])  # fmt: skip
    for result, said in zip(results, ["is not the id", "no such motion", "empty"], strict=True):
        assert result.is_error
        assert said in result.content[0].text
    assert not list(tmp_path.iterdir())
    (refused,) = ask(server, tmp_path, [("generate", {"prompt": "a person walks"})], token="wrong-token")
    assert "token" in refused.content[0].text


# --- Blender --------------------------------------------------------------------------------------------------------

IN_BLENDER = """
import importlib.util, sys, bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
spec = importlib.util.spec_from_file_location("blender_addon", sys.argv[1])
addon = importlib.util.module_from_spec(spec)
sys.modules["blender_addon"] = addon
spec.loader.exec_module(addon)
addon.register()
settings = bpy.context.scene.hftrainer
settings.prompt, settings.then, settings.seconds, settings.seed = "a person walks", "someone runs", 1.0, 3
settings.skeleton = "mixamo"
print("SAID", bpy.ops.hftrainer.generate())
body = next(thing for thing in bpy.data.objects if thing.type == "ARMATURE")
print("BODY", body.name, "|", body.animation_data.action.name, "|", len(body.data.bones), bpy.context.scene.render.fps)
print("BONE", any("Hips" in bone.name for bone in body.data.bones))
first = [tuple(body.animation_data.action.frame_range)]
print("RANGE", *first[0])
settings.seconds = 0
try:
    bpy.ops.hftrainer.generate()
except RuntimeError as error:
    print("REFUSED", error)
addon.unregister()
print("GONE", hasattr(bpy.types.Scene, "hftrainer"))
"""


@pytest.mark.slow
def test_the_addon_brings_a_motion_into_blender(server):
    pytest.importorskip("bpy", reason="pip install bpy")
    environment = {**os.environ, "HFTRAINER_SERVER": server, "HFTRAINER_TOKEN": TOKEN}
    command = [sys.executable, "-c", IN_BLENDER, str(CLIENTS / "blender_addon.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if re.match(r"[A-Z]+ ", line))
    assert said["SAID"] == "{'FINISHED'}"
    assert said["BODY"].startswith("a person walks | a person walks |")
    assert said["BODY"].endswith(" 30")
    assert said["BONE"] == "True"
    start, end = map(float, said["RANGE"].split())
    assert 58 <= end - start <= 60  # two seconds
    assert "how long each lasts" in said["REFUSED"]
    assert said["GONE"] == "False"
