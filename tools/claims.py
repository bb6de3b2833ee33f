"""Makes CLAIMS.md: each claim of the papers that a lesson tests, with the number and the verdict.

    python tools/claims.py            writes CLAIMS.md from the executed notebooks in notebooks/solutions/
    python tools/claims.py --check    fails when CLAIMS.md is not what the notebooks say

The records are what `tutorial_lib.lab.claims.claim` left in the notebooks' outputs. A claim that rests on a long
experiment names its table in results/, which must exist.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HEAD = """\
# What the papers claim, and what we measured

Made by `python tools/claims.py` from the executed notebooks; change the lessons, not this page.
"Not visible at this scale" means that our small model neither shows the effect nor its opposite.
Behind the ± of a difference stand two standard errors.
"""
COLUMNS = ("Claim", "Paper", "Measured", "Verdict", "Seeds", "Where")


class ClaimError(ValueError):
    """A claim that cannot go into the table; the message says which and why."""


def collect(folder: Path) -> list[dict]:
    """The records of all notebooks of a folder, in order; each gains `where`, its notebook and cell."""
    records = []
    for path in sorted(folder.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if record := output.get("metadata", {}).get("course", {}).get("claim"):
                    records.append(record | {"where": (path.name, cell["id"])})
    ids = [record["id"] for record in records]
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise ClaimError(f"claims recorded twice: {sorted(twice)}; give each its own id")
    return records


def page(records: list[dict], root: Path) -> str:
    """The text of CLAIMS.md: verdicts counted, then one row a claim."""
    verdicts = [record["verdict"] for record in records]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts))) or "none yet"
    rows = [_row(COLUMNS), _row(["---"] * len(COLUMNS)), *(_row(_cells(record, root)) for record in records)]
    return f"{HEAD}\n{len(records)} claims: {counts}.\n\n" + "\n".join(rows) + "\n"


def _cells(record: dict, root: Path) -> list[str]:
    notebook, cell = record["where"]
    where = f"[{notebook[:2]}, {cell}](notebooks/solutions/{notebook})"
    if table := record.get("results"):
        if not (root / table).is_file():
            raise ClaimError(f"claim {record['id']!r} rests on {table}, which does not exist")
        where += f", [{table}]({table})"
    seeds = ", ".join(map(str, record["seeds"]))
    return [record["text"], record["paper"], record["measured"], record["verdict"], seeds, where]


def _row(values) -> str:
    return "| " + " | ".join(value.replace("|", "\\|").replace("\n", " ") for value in values) + " |"


def write(root: Path) -> None:
    """Writes the CLAIMS.md of a course."""
    (root / "CLAIMS.md").write_text(_text(root), encoding="utf-8")


def is_current(root: Path) -> bool:
    """True if CLAIMS.md is what the notebooks say."""
    file = root / "CLAIMS.md"
    return file.exists() and file.read_text(encoding="utf-8") == _text(root)


def _text(root: Path) -> str:
    return page(collect(root / "notebooks" / "solutions"), root)


def main(arguments: list[str] | None = None, root: Path = Path(__file__).parents[1]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args(arguments).check
    try:
        if not check:
            write(root)
        elif not is_current(root):
            raise ClaimError("CLAIMS.md is not what the notebooks say. Run: python tools/claims.py")
    except ClaimError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
