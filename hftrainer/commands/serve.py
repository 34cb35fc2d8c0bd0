"""``hftrainer serve``: a page to type into, and an API."""

from __future__ import annotations

import argparse
from pathlib import Path

from hftrainer.commands.common import add_device, add_dtype, device_of

EPILOG = """examples:
  hftrainer serve
  hftrainer serve --model gotozero-nano --port 9000
  hftrainer serve --model runs/walker/best --model gotozero-nano --rows 16
  hftrainer serve --host 0.0.0.0 --token "$(openssl rand -hex 16)"
The page is at http://127.0.0.1:8000/, the API's description at /openapi.json; see docs/serving.md."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--model", action="append", metavar="NAME", help="zoo name, model folder, or owner/repository; may be repeated")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    add("--port", type=int, default=8000, help="default 8000; 0: any that is free")
    add("--token", help="what requests must show; needed for a host that other machines can reach")
    add("--jobs", type=Path, default=Path("out/serve"), help="folder of finished motions (default out/serve)")
    add("--keep", type=int, default=1000, help="finished jobs that are kept (default 1000)")
    add("--rows", type=int, help="motions that are decoded together; default: as many as are worthwhile and fit")
    add("--queue", type=int, default=1024, help="motions that may wait (default 1024)")
    add("--allow-host", action="append", default=[], metavar="NAME", help="another name by which this server is called")
    add("--allow-origin", action="append", default=[], metavar="URL", help="a site whose pages may call this server")
    add_device(parser)
    add_dtype(parser, "of the transformer, e.g. bf16; default: as stored")
    add("--quantize", choices=["int8", "int4"], help="quantize the transformer while loading")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from hftrainer.extras import need

    for module in ("fastapi", "uvicorn", "websockets"):
        need(module, "hftrainer serve")
    from hftrainer.defaults import DEFAULT_MODEL
    from hftrainer.serve.run import serve
    from hftrainer.serve.settings import Settings

    load = {"device": device_of(args), "dtype": args.dtype, "quantize": args.quantize}
    settings = Settings(
        models=tuple(args.model or [DEFAULT_MODEL]), host=args.host, port=args.port, token=args.token, jobs=args.jobs,
        keep=args.keep, rows=args.rows, queue=args.queue, hosts=tuple(args.allow_host),
        origins=tuple(args.allow_origin), load=load,
    )  # fmt: skip
    return serve(settings)
