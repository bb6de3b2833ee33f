"""What is graded already: one line of JSON for each submission, written as soon as it is graded."""

from __future__ import annotations

import json
import os
from pathlib import Path


class Records:
    """The lines of a file. A line that a kill cut short is dropped; of several about one submission the last counts."""

    def __init__(self, path: Path):
        self.path = path
        self._known = {record["file"]: record for record in _whole_lines(path)}

    def get(self, file: str, sha256: str, basis: str) -> dict | None:
        """The record of a submission with these bytes, graded on this basis; None if there is none."""
        record = self._known.get(file)
        return record if record and (record["sha256"], record["basis"]) == (sha256, basis) else None

    def add(self, record: dict) -> None:
        """Appends a record; on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._known[record["file"]] = record


def _whole_lines(path: Path) -> list[dict]:
    """The records of a file, from which an unfinished last line is cut away."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]
