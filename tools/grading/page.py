"""The tables of a grading: grades.csv, one line an exercise, and grades.html, one line a notebook. Both stand alone."""

from __future__ import annotations

import csv
import html
import io
import os
from collections import Counter
from pathlib import Path

COLUMNS = ("student", "lesson", "file", "exercise", "points", "of", "state", "diagnosis")
SIGNS = {
    "right": ("✓", "#009E73"),
    "wrong": ("✗", "#D55E00"),
    "to do": ("…", "#777777"),
    "missing": ("–", "#777777"),
    "library": ("L", "#0072B2"),
    "tampered": ("!", "#CC79A7"),
    "stopped": ("∞", "#D55E00"),
    "crashed": ("×", "#D55E00"),
    "unreadable": ("?", "#D55E00"),
}
MEANINGS = {
    "right": "right",
    "wrong": "wrong, see the diagnosis",
    "to do": "not written yet",
    "missing": "no cell for it in the notebook",
    "library": "right, but the course's library does the work",
    "tampered": "replaces something that the check stands on",
    "stopped": "not done in time",
    "crashed": "stopped before the check could judge it",
    "unreadable": "the file is no notebook of a known lesson",
}
STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd }
th { text-align: left; vertical-align: bottom } td.n { text-align: right } td { vertical-align: top }
small { color: #666 } pre { white-space: pre-wrap; margin: 0; font: inherit } summary { cursor: pointer }
"""


def rows_of(record: dict) -> list[dict]:
    """The lines of one notebook in grades.csv."""
    shared = {key: record[key] for key in ("student", "lesson", "file")}
    return [shared | result for result in record["results"]]


def write(out: Path, records: list[dict], remarks: list[str], skipped: list[tuple[str, str]]) -> None:
    """Writes grades.csv and grades.html, each whole or not at all."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    writer.writerows([_harmless(row[column]) for column in COLUMNS] for r in records for row in rows_of(r))
    _replace(out / "grades.csv", "\ufeff" + stream.getvalue())  # the mark by which spreadsheets know UTF-8
    _replace(out / "grades.html", page(records, remarks, skipped))


def _harmless(value):
    """A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8", errors="replace", newline="")  # file names may be no Unicode
    os.replace(new, path)


# ------------------------------------------------------------------ the page


def page(records: list[dict], remarks: list[str], skipped: list[tuple[str, str]]) -> str:
    """The text of grades.html."""
    lessons = sorted({record["lesson"] for record in records})
    parts = [_lesson_table(lesson, [r for r in records if r["lesson"] == lesson]) for lesson in lessons]
    parts += [_list("Please look at these", remarks), _list("Skipped", [f"{file}: {why}" for file, why in skipped])]
    signs = ", ".join(f"{_sign(state)} {html.escape(meaning)}" for state, meaning in MEANINGS.items())
    body = f"<h1>Grades</h1>\n<p>{len(records)} notebooks. {signs}.</p>\n" + "\n".join(filter(None, parts))
    head = f'<meta charset="utf-8"><title>Grades</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _lesson_table(lesson: str, records: list[dict]) -> str:
    names = list(dict.fromkeys(result["exercise"] for record in records for result in record["results"]))
    heads = "".join(f"<th>{html.escape(text)}</th>" for text in ("student", "points", *names, "diagnoses"))
    rows = "\n".join(_row(record, names) for record in records)
    title = f"Lesson {lesson}" if lesson else "Files that could not be graded"
    return f"<h2>{html.escape(title)}</h2>\n<table><tr>{heads}</tr>\n{rows}\n</table>\n" + _frequent(records)


def _row(record: dict, names: list[str]) -> str:
    results = {result["exercise"]: result for result in record["results"]}
    cells = "".join(f"<td>{_sign(results[name]['state']) if name in results else ''}</td>" for name in names)
    total = f"{sum(r['points'] for r in results.values())} / {sum(r['of'] for r in results.values())}"
    student = f"<td>{html.escape(record['student'])}<br><small>{html.escape(record['file'])}</small></td>"
    return f'<tr>{student}<td class="n">{total}</td>{cells}<td>{_diagnoses(record["results"])}</td></tr>'


def _diagnoses(results: list[dict]) -> str:
    told = [r for r in results if r["state"] not in ("right", "to do")]
    items = "".join(f"<li><b>{html.escape(r['exercise'])}</b> {_text(r['diagnosis'])}</li>" for r in told)
    return f"<details><summary>{len(told)}</summary><ul>{items}</ul></details>" if told else ""


def _text(diagnosis: str) -> str:
    return f"<pre>{html.escape(diagnosis)}</pre>"


def _sign(state: str) -> str:
    sign, colour = SIGNS[state]
    return f'<b style="color: {colour}" title="{MEANINGS[state]}">{sign}</b>'


def _frequent(records: list[dict]) -> str:
    """The diagnoses that several notebooks got: what to talk about in class."""
    results = [result for record in records for result in record["results"] if result["state"] == "wrong"]
    counts = Counter((result["exercise"], result["diagnosis"].partition("\n")[0]) for result in results)
    told = [f"{count} times, {name}: {text}" for (name, text), count in counts.most_common(8) if count > 1]
    return _list("Said more than once", told)


def _list(title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h2>{title}</h2>\n<ul>{items}</ul>" if lines else ""
