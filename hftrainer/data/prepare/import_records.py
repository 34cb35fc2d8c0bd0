"""import.jsonl of a dataset folder: what each clip was made from, written as it comes, one import at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hftrainer.files import write_text
from hftrainer.readers import inside, read_jsonl

NAME = "import.jsonl"


class ImportRecords:
    """Records by clip. Workers append theirs as soon as a clip is written; a kill loses only what is in work."""

    def __init__(self, root: Path):
        self.root = root
        self.clips: dict[str, dict[str, Any]] = {}
        path = root / NAME
        if path.is_file():
            for number, record in read_jsonl(path, ignore_cut_end=True):
                self.take(record, f"{path}, line {number}")

    def add(self, record: dict[str, Any]) -> None:
        """Note something about a clip, on disk at once."""
        append(self.root, record)
        self.take(record)

    def take(self, record: dict[str, Any], where: str = NAME) -> None:
        """Know of a record that is on disk already."""
        inside(self.root, record.get("clip"), suffix=".npy", what=f"{where}: clip")
        if record.get("removed"):
            self.clips.pop(record["clip"], None)
        else:
            self.clips[record["clip"]] = record

    def finish(self) -> None:
        """Write the records that still hold, sorted, in the place of what was appended."""
        lines = [json.dumps(self.clips[name], ensure_ascii=False) for name in sorted(self.clips)]
        write_text(self.root / NAME, "".join(f"{line}\n" for line in lines))

    def mend_end(self) -> None:
        """A kill may have cut the last line; what is appended must not continue it."""
        path = self.root / NAME
        if path.is_file() and path.stat().st_size:
            with open(path, "rb+") as stream:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.truncate(path.read_bytes().rfind(b"\n") + 1)


def append(root: Path, record: dict[str, Any]) -> None:
    """Add a line, in one piece: several processes may do so at once."""
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    handle = os.open(root / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)
