"""Short notes that a cell shows: a coloured bar at the left, a bold title, text. Verdicts, claims, outcomes."""

from __future__ import annotations

import html

GOOD, BAD, PLAIN = "#009E73", "#D55E00", "#999999"  # told apart by colour-blind readers; the title says it in words


def note(title: str, text: str, colour: str = PLAIN) -> dict[str, str]:
    """The note as plain text and as HTML, by MIME type. Line breaks in `text` are kept."""
    style = f"border-left: 5px solid {colour}; padding: 0.2em 0.8em; white-space: pre-line"
    page = f'<div style="{style}"><b>{html.escape(title)}</b> {html.escape(text)}</div>'
    return {"text/plain": f"{title} {text}", "text/html": page}
