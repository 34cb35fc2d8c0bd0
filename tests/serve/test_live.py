"""Live sessions over a websocket."""

from __future__ import annotations

import pytest
from starlette.websockets import WebSocketDisconnect

from tests.serve.test_motions import RUN, WALK, positions_of

LIVE = "ws://127.0.0.1:8000/v1/live"


def test_a_figure_moves_and_changes_its_mind(client):
    with client.websocket_connect(f"{LIVE}?seed=3") as socket:
        assert socket.receive_json() == {"ready": True, "fps": 30.0, "joints": 22}
        socket.send_json({"say": WALK})
        first = socket.receive_json()
        assert (first["start"], first["prompt"]) == (0, WALK)
        socket.send_json({"say": RUN})
        at, message = len(positions_of(first)), first
        for _ in range(40):
            message = socket.receive_json()
            assert message["start"] == at
            at += len(positions_of(message))
            if message["prompt"] == RUN:
                break
        assert message["prompt"] == RUN
        socket.send_json({"stop": True})
    assert client.app.state.service.models.default.worker.joined.running == 0


def test_bad_messages_are_answered(client):
    with client.websocket_connect(LIVE) as socket:
        socket.receive_json()
        for text in ("{", "[]", '{"say": 7}', '{"say": ""}', '{"say": "' + "x" * 5000 + '"}'):
            socket.send_text(text)
            assert socket.receive_json()["error"] == "invalid"
        socket.send_json({"say": WALK})
        assert socket.receive_json()["start"] == 0


def test_sessions_are_counted_and_other_sites_refused(make_client):
    client = make_client(max_live=1)
    with client.websocket_connect(LIVE) as first:
        first.receive_json()
        with client.websocket_connect(LIVE) as second:
            assert second.receive_json()["error"] == "busy"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(LIVE, headers={"Origin": "https://evil.example"}):
        pass
