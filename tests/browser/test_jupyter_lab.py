import shutil
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("selenium", reason="the browser test needs selenium: make setup installs it")
import jupyter_browser as driver

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
WIDGETS = """
import io
import ipywidgets
from PIL import Image

def draw(change):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (change["new"] // 10 * 10, 0, 0)).save(file, "PNG")
    picture.value = file.getvalue()

slider = ipywidgets.IntSlider(50, continuous_update=False)
picture = ipywidgets.Image(width=80)
slider.observe(draw, "value")
draw({"new": slider.value})
ipywidgets.VBox([slider, picture])
"""

# Runs in a lesson's kernel before its first cell. nbval trains the solutions in full: here one step stands for all
# between two looks, so that the page has its pictures in a fraction of the time. What lessons assert of their
# measurements would fail then, so these kernels strip assertions.
SHORT_TRAINING = """
def _shorten():
    from tutorial_lib import training

    whole = training.fit

    def fit(task, steps, *arguments, every=10, callback=None, **options):
        look = callback and (lambda step, history: callback(step * every, history))
        history = whole(task, max(1, steps // every), *arguments, every=1, callback=look, **options)
        history.watched_at[:] = [every * step for step in history.watched_at]
        return history

    training.fit = fit

_shorten()
"""

pytestmark = pytest.mark.skipif(
    bool(driver.missing_programs()), reason=f"no {' and no '.join(driver.missing_programs())} on this machine"
)


@pytest.fixture
def folder(tmp_path):
    """An empty folder that JupyterLab serves."""
    (tmp_path / "served").mkdir()
    return tmp_path / "served"


@pytest.fixture
def lab(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    with driver.start_lab(folder, tmp_path) as lab:
        yield lab


@pytest.fixture
def browser(tmp_path):
    with driver.start_browser(tmp_path) as browser:
        yield browser


def write_notebook(file, *sources):
    """A notebook of code cells for this Python's kernel."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), file)


def test_driver_moves_a_slider_and_sees_the_picture_change(folder, lab, browser):
    write_notebook(folder / "widgets.ipynb", "1 + 1", *["print('far down')\n" * 60] * 2, WIDGETS)
    driver.open_notebook(browser, lab, "widgets.ipynb")
    driver.run_all(browser, timeout=60)
    slider, picture = driver.find_slider_and_picture(browser)
    assert not driver.is_at_its_end(slider)
    before = driver.pixels(browser, picture)
    driver.move_slider(slider, steps=10)
    after = driver.wait_for_change(browser, picture, before, timeout=20)
    driver.move_slider(slider, steps=-1)
    assert driver.wait_for_change(browser, picture, after, timeout=20) == before
    driver.move_slider(slider, steps=-1)
    with pytest.raises(AssertionError, match="did not change"):  # the same picture again, newly sent
        driver.wait_for_change(browser, picture, before, timeout=2)
    driver.move_slider(slider, steps=42)
    assert driver.is_at_its_end(slider)
    assert "slider.observe" in driver.find_cell(browser, "IntSlider").text
    with pytest.raises(LookupError, match="no code cell has 'nowhere'"):
        driver.find_cell(browser, "nowhere")


def test_driver_reports_a_cell_that_fails(folder, lab, browser):
    write_notebook(folder / "wrong.ipynb", "1 / 0", "print('never reached')")
    driver.open_notebook(browser, lab, "wrong.ipynb")
    with pytest.raises(AssertionError, match="ZeroDivisionError.*1 / 0"):
        driver.run_all(browser, timeout=60)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem[:2])
def test_a_lesson_runs_and_its_first_picture_follows_the_slider(notebook, folder, lab, browser, tmp_path):
    shutil.copy(notebook, folder)
    driver.run_in_new_kernels(tmp_path, SHORT_TRAINING)
    driver.open_notebook(browser, lab, notebook.name)
    driver.run_all(browser, timeout=400)
    slider, picture = driver.find_slider_and_picture(browser)
    before = driver.pixels(browser, picture)
    driver.move_slider(slider, steps=-1 if driver.is_at_its_end(slider) else 1)
    driver.wait_for_change(browser, picture, before, timeout=60)
