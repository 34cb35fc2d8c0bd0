"""Run by tests: every command's ordinary path in a process that may not make a socket.

    python -m tests.faults.offline PLACE

The interpreter tells an audit hook of each socket, connection and look-up of a name, whoever asks for it in Python. The
first one ends the process with status 66, after the command line that asked. `LINES` has every verb of every command;
`ASKS` those whose purpose is the network, with the reason.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

FORBIDDEN = 66
ASKS = {
    "zoo pull": "downloads",
    "convert push": "uploads",
    "serve": "listens; tried by itself, on loopback",
    "bench serve": "starts a server and sends it requests, on loopback",
}
_EVENTS = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
           "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")  # fmt: skip
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_current = ["(no command)"]


def forbid(loopback: bool = False) -> None:
    """From now on no socket of the internet in this process; with `loopback` none to another machine."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.__new__":
            asks = not loopback and arguments[1] not in (getattr(socket, "AF_UNIX", None),)
        elif event in _EVENTS:
            address = arguments[0] if event.startswith("socket.get") else arguments[1]
            host = address[0] if isinstance(address, tuple) else address
            local = isinstance(host, (bytes, Path)) or (isinstance(host, str) and host.startswith(("/", "\0")))
            asks = not (local or (loopback and host in _LOOPBACK))
        else:
            return
        if asks:
            traceback.print_stack()
            print(f"network: {event} {arguments[1:]} by: {_current[0]}", file=sys.stderr, flush=True)
            os._exit(FORBIDDEN)

    sys.addaudithook(refuse)


def lines(place: Path) -> dict[str, list[str]]:
    """Command lines by command and verb, in an order in which each finds what it needs below `place`."""
    given, out = place / "given", place / "out"
    data, model = out / "data", str(given / "model")
    shutil.copytree(given / "data", data)
    table = {
        "data synthetic": f"data synthetic --out {out}/made_up --clips 24",
        "data verify": f"data verify {out}/made_up",
        "generate": f"generate walks --model gotozero-nano --seconds 1 --formats npy,bvh,html --out {out}/made",
        "export": f"export {out}/made/000_walks_s0.npy --formats npz,bvh,gif --out {out}/exported",
        "train": f"train configs/gotozero/debug_tokenizer.yaml data.root={out}/made_up trainer.max_steps=6 "
        f"callbacks=[] trainer.checkpoint_every_n_steps=3 output_dir={out}/run trainer.accelerator=cpu",
        "convert run": f"convert run {out}/run --out {out}/trained",
        "convert checkpoint": f"convert checkpoint --ar {given}/released/ar.zip --fsq {given}/released/fsq.zip --mean "
        f"{given}/released/mean.npy --std {given}/released/std.npy --text_model_source {given}/released/t5 --out_dir "
        f"{out}/converted",
        "convert llama": f"convert llama {model} --out {out}/llama",
        "convert adapter": f"convert adapter {model} {given}/adapter --out {out}/merged",
        "evaluate run": f"evaluate run --data {given}/data --evaluator {given}/judge --predictions {given}/predictions "
        f"--out {out}/report --set batches.size=4 --set repeats=2",
        "evaluate leaderboard": f"evaluate leaderboard {out}/report --out {out}/board --resamples 20",
        "evaluate generate": f"evaluate generate --model {model} --data {given}/data --pair-source official_split "
        f"--split test --greedy --device cpu --out {out}/set",
        "evaluate tokenizer": f"evaluate tokenizer {model} --data {given}/data --split test --out {out}/tokenizer",
        "evaluate actions": f"evaluate actions {model} --data {given}/data --split test --evaluator {given}/judge "
        f"--least 1 --seeds 1 --pairs 1 --top-k 5 --out {out}/actions",
        "data synthetic-rows": f"data synthetic-rows --out {out}/rows --rows 200",
        "data check-import": f"data check-import {given}/bvh --skeleton smpl22 --workers 1",
        "data import-motion": f"data import-motion {given}/bvh --skeleton smpl22 --workers 1 --out {out}/imported",
        "data import-bvh": f"data import-bvh {given}/bvh --skeleton smpl22 --workers 2 --out {out}/imported_again",
        "data import-tar": f"data import-tar {given}/shard.tar --out {out}/tar --split train",
        "data captions": f"data captions {out}/made_up --templates {given}/templates.yaml",
        "data split": f"data split {out}/made_up --val 0.2",
        "data mirror": f"data mirror {out}/made_up --templates {given}/templates.yaml",
        "data join": f"data join {out}/made_up --templates {given}/templates.yaml --count 2",
        "data stats": f"data stats {data} --split train",
        "data tokenize": f"data tokenize {data} --model {model}",
        "data pack-tokens": f"data pack-tokens {data} --out {out}/packed_tokens",
        "data pack-motions": f"data pack-motions {data} --out {out}/packed",
        "data text-features": f"data text-features {data} --model {model} --out {out}/features.safetensors",
        "data convert-representation": f"data convert-representation {data} --to hml263 --out {out}/hml263",
        "data vocabulary": f"data vocabulary {given}/data --model {given}/speaking --wordnet {given}/wordnet",
        "evaluate prompts": f"evaluate prompts {given}/speaking --data {given}/data --split test --out {out}/prompts",
        "zoo list": "zoo list --json",
        "zoo show": "zoo show gotozero-nano",
        "zoo path": "zoo path gotozero-nano",
        "doctor": f"doctor {model}",
    }
    return {name: line.split() for name, line in table.items()}


def prepare_more(given: Path) -> None:
    """What `tests.faults.jobs.prepare` does not make."""
    import torch

    from hftrainer.data.synthetic.motions import CAPTIONS
    from tests.fuzz.folders import _adapter
    from tests.fuzz.seeds import as_tar
    from tests.test_vocabulary import write_wordnet

    torch.manual_seed(0)
    shutil.copytree(given / "model", given / "speaking")
    write_wordnet(given / "wordnet")
    (given / "shard.tar").write_bytes(as_tar())
    (given / "adapter").mkdir()
    for name, content in _adapter().items():
        (given / "adapter" / name).write_bytes(content)
    about = {"clip": r"[^_]+_(?P<content>[a-z-]+)_.*", "subjects": ["a person"], "styles": {"normal": {"plain": True}},
             "mirrored": {content: content for content in CAPTIONS}, "croppable": sorted(CAPTIONS),
             "contents": {content: [content] for content in CAPTIONS}}  # fmt: skip
    (given / "templates.yaml").write_text(json.dumps(about))


def main(place: Path) -> int:
    """Run all; a line of JSON with the status of each. 66 where one of them asked the network."""
    from hftrainer.cli import main as hftrainer
    from tests.faults.jobs import prepare

    given = place / "given"
    given.mkdir(parents=True)
    prepare(given)
    prepare_more(given)
    table = lines(place)
    forbid()
    for name, line in table.items():
        _current[0] = " ".join(line)
        said, streams = io.StringIO(), (sys.stdout, sys.stderr)
        sys.stdout = sys.stderr = said
        try:
            status = hftrainer(line)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout, sys.stderr = streams
        print(json.dumps({"command": name, "status": status, "said": said.getvalue()[-1500:]}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
