"""Photograph a cell of a lesson, as a student sees it in JupyterLab after "Run All Cells".

    python tools/screenshot.py 00 prompt_box docs/lesson_00.png     the picture in the README

The cell is the first one with this text in its source. Needs chromium and chromedriver. A copy of the student's
notebook is opened, for JupyterLab saves what it runs.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import jupyter_browser as driver

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600  # seconds that a lesson may run
WINDOW = (1150, 1400)  # a cell that is taller is cut off


def photograph(lesson: str, text: str, file: Path) -> None:
    """Runs the student's notebook of a lesson, and saves the cell as the browser shows it."""
    notebook = next(ROOT.glob(f"notebooks/{lesson}_*.ipynb"), None)
    if notebook is None:
        raise SystemExit(f"there is no lesson {lesson!r} in notebooks/: expected a number such as 00")
    if missing := driver.missing_programs():
        raise SystemExit(f"install {' and '.join(missing)} first")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "served"
        folder.mkdir()
        shutil.copy(notebook, folder)
        with driver.start_lab(folder, Path(scratch)) as lab, driver.start_browser(Path(scratch)) as browser:
            browser.set_window_size(*WINDOW)
            driver.open_notebook(browser, lab, notebook.name)
            driver.run_all(browser, TIMEOUT)
            driver.find_cell(browser, text).screenshot(str(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", help="its number, such as 00")
    parser.add_argument("text", help="of the cell, in its source")
    parser.add_argument("file", type=Path, help="where the picture goes")
    options = parser.parse_args()
    photograph(options.lesson, options.text, options.file)
    print(f"wrote {options.file}")


if __name__ == "__main__":
    main()
