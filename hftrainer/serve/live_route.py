"""The websocket of live sessions."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import FastAPI, Query
from starlette.websockets import WebSocket, WebSocketDisconnect

from hftrainer.readers import parse_json
from hftrainer.serve.live import LiveFeed
from hftrainer.serve.refusal import Refusal
from hftrainer.serve.service import Service


def add_live(app: FastAPI, service: Service) -> None:
    """Adds ``/v1/live``."""

    @app.websocket("/v1/live")
    async def live(
        socket: WebSocket, model: str | None = None, seed: Annotated[int, Query(ge=0, lt=2**63)] = 0
    ) -> None:
        """``{"say": "walks"}`` changes the prompt, ``{"stop": true}`` ends; frames are sent as they are made."""
        await socket.accept()
        try:
            feed = await _open(service, model, seed)
        except Refusal as refusal:
            await socket.send_json(refusal.as_dict())
            await socket.close(1013)
            return
        listening = asyncio.create_task(_listen(socket, feed, service.settings.max_prompt))
        try:
            await socket.send_json({"ready": True, "fps": feed.fps, "joints": 22})
            await _talk(socket, feed, listening)
        except (WebSocketDisconnect, RuntimeError):  # the client has left
            pass
        finally:
            feed.stop()
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await listening


async def _open(service: Service, model: str | None, seed: int) -> LiveFeed:
    served = service.models.get(model)
    if not hasattr(served.pipeline, "live"):
        raise Refusal(422, "invalid", f"the model {served.name} has no live sessions")
    feed = LiveFeed(served.pipeline, seed, asyncio.get_running_loop())
    served.worker.open_live(feed)
    return feed


async def _talk(socket: WebSocket, feed: LiveFeed, listening: asyncio.Task[None]) -> None:
    """Send messages until the client stops or leaves."""
    while True:
        coming = asyncio.ensure_future(feed.next_message())
        await asyncio.wait({coming, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            coming.cancel()
            await socket.close()
            return
        message = coming.result()
        await socket.send_json(message)
        if "error" in message and feed.closed:
            await socket.close(1011)
            return


async def _listen(socket: WebSocket, feed: LiveFeed, longest: int) -> None:
    """Read prompts; returns when the client stops or leaves."""
    while True:
        await feed.room()
        try:
            message = await _message(socket)
        except WebSocketDisconnect:
            return
        if message.get("stop") is True:
            return
        said = message.get("say")
        if not isinstance(said, str) or not said.strip() or len(said) > longest:
            feed.send(error="invalid", message=f'say something in 1 to {longest} characters: {{"say": "walks"}}')
            continue
        try:
            await asyncio.to_thread(feed.say, said)
        except (ValueError, TypeError) as error:
            feed.send(error="invalid", message=str(error))


async def _message(socket: WebSocket) -> dict[str, Any]:
    try:
        message = parse_json(await socket.receive_text(), "message")
    except (ValueError, KeyError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
