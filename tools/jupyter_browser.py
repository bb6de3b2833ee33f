"""Drives a real JupyterLab in headless Chromium, as a student would: open a notebook, run it all, move a slider."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from selenium import webdriver
from selenium.common.exceptions import JavascriptException, TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
LAB_FLAGS = (
    "--no-browser",
    "--allow-root",
    "--LabApp.expose_app_in_browser=True",  # what the page shows is partial: cells out of sight are not in it
)
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
CELLS = """
    const panel = window.jupyterapp.shell.currentWidget;
    return Array.from(panel.content.model.cells).filter(cell => cell.type === 'code').map(cell => ({
        index: panel.content.widgets.findIndex(widget => widget.model === cell),
        source: cell.sharedModel.getSource(), count: cell.executionCount, outputs: cell.outputs.toJSON()}));
"""
KERNEL_STATUS = "return window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"
SCROLL = "return window.jupyterapp.shell.currentWidget.content.scrollToItem(arguments[0], 'start')"
PIXELS = """
    if (!arguments[0].complete || !arguments[0].naturalWidth) return null;
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [arguments[0].naturalWidth, arguments[0].naturalHeight];
    canvas.getContext('2d').drawImage(arguments[0], 0, 0);
    return canvas.toDataURL();
"""


class Lab(NamedTuple):
    """Where a running JupyterLab server answers."""

    url: str  # ends with a slash
    token: str


def missing_programs() -> list[str]:
    """What the browser test needs and this machine does not have."""
    found = {"chromium": _chromium(), "chromedriver": shutil.which("chromedriver")}
    return [name for name, path in found.items() if path is None]


@contextmanager
def start_lab(folder: Path, scratch: Path) -> Iterator[Lab]:
    """Serve `folder` by this Python's JupyterLab on a free port; its settings and its log go to `scratch`."""
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {home: str(scratch / home.lower()) for home in homes}
    environment.pop("TUTORIAL_STRICT", None)  # as a student's: there a check never raises
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", "--ServerApp.port=0", *LAB_FLAGS]
    with (scratch / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield _wait_for_server(server, scratch)
    finally:
        server.terminate()
        server.wait(timeout=30)


def run_in_new_kernels(scratch: Path, source: str) -> None:
    """Have each kernel that the lab of `scratch` starts from now on run `source` before its first cell."""
    file = scratch / "ipythondir" / "profile_default" / "startup" / "first.py"
    file.parent.mkdir(parents=True)
    file.write_text(source)


@contextmanager
def start_browser(scratch: Path) -> Iterator[webdriver.Chrome]:
    """Headless Chromium with an empty profile in `scratch`."""
    options = webdriver.ChromeOptions()
    options.binary_location = _chromium()
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={scratch / 'profile'}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def open_notebook(browser: webdriver.Chrome, lab: Lab, name: str) -> None:
    """Open the notebook `name` of the served folder, and wait until its kernel is ready."""
    browser.get(f"{lab.url}lab/tree/{name}?token={lab.token}")
    _wait(browser, 90, f"{name} did not open with an idle kernel", lambda: _kernel_is_idle(browser))


def run_all(browser: webdriver.Chrome, timeout: float) -> None:
    """Choose Run > Run All Cells and wait until each code cell ran; AssertionError with the first error, if any."""
    for label in ("Run", "Run All Cells"):
        click(browser, By.XPATH, f"//li[@role='menuitem'][.//div[text()='{label}']]")
    _wait(browser, timeout, "not all cells ran", lambda: errors(browser) or _all_ran(browser))
    assert not errors(browser), errors(browser)[0]


def errors(browser: webdriver.Chrome) -> list[str]:
    """The error outputs of the open notebook, each as 'name: message, in the cell that begins so'."""
    return [
        f"{output['ename']}: {output['evalue']}, in the cell that begins with {cell['source'][:200]!r}"
        for cell in _cells(browser)
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]


def find_slider_and_picture(browser: webdriver.Chrome, timeout: float = 20) -> tuple[WebElement, WebElement]:
    """The first slider's handle and the first picture of the first cell whose widgets hold both."""
    for cell in filter(_shows_widgets, _cells(browser)):
        if (output := _cell_element(browser, cell["index"], timeout)) is None:
            continue  # a progress bar that is over leaves a widget that is never drawn
        handles = output.find_elements(By.CSS_SELECTOR, ".widget-slider .noUi-handle")
        pictures = output.find_elements(By.CSS_SELECTOR, "img.widget-image")
        if handles and pictures:
            _wait(browser, timeout, "the picture was not loaded", partial(pixels, browser, pictures[0]))
            return handles[0], pictures[0]
    raise AssertionError("No cell shows a slider and a picture together.")


def move_slider(handle: WebElement, steps: int) -> None:
    """Press the arrow key `steps` times on a slider's handle: to the right, or to the left if negative."""
    key = Keys.ARROW_RIGHT if steps > 0 else Keys.ARROW_LEFT
    handle.send_keys(key * abs(steps))


def is_at_its_end(handle: WebElement) -> bool:
    """Whether a slider's handle is at its right end, where a step to the right moves nothing."""
    return float(handle.get_attribute("aria-valuenow")) == float(handle.get_attribute("aria-valuemax"))


def pixels(browser: webdriver.Chrome, picture: WebElement) -> str | None:
    """What a picture shows, as a data URL: two are equal exactly when all pixels are. None while it is loading."""
    return browser.execute_script(PIXELS, picture)


def wait_for_change(browser: webdriver.Chrome, picture: WebElement, before: str, timeout: float) -> str:
    """The picture's pixels as soon as they are others than `before`."""
    _wait(browser, timeout, "the picture did not change", lambda: pixels(browser, picture) not in (before, None))
    return pixels(browser, picture)


def find_cell(browser: webdriver.Chrome, text: str) -> WebElement:
    """The first code cell with this text in its source, scrolled into sight; LookupError if there is none."""
    index = next((cell["index"] for cell in _cells(browser) if text in cell["source"]), None)
    if index is None:
        raise LookupError(f"no code cell has {text!r} in its source")
    for _ in range(4):  # again and again: pictures that load above push it out of sight
        browser.execute_script(SCROLL, index)
        time.sleep(1)
    return browser.find_element(By.CSS_SELECTOR, f".jp-Cell[data-windowed-list-index='{index}']")


def click(browser: webdriver.Chrome, by: str, what: str, timeout: float = 20) -> None:
    """Click on the first such element as soon as there is one."""
    _wait(browser, timeout, f"there is no {what}", lambda: browser.find_elements(by, what))
    browser.find_element(by, what).click()


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def _wait_for_server(server: subprocess.Popen, scratch: Path, timeout: float = 60) -> Lab:
    """The server's address, from the file that it writes when it listens."""
    file = scratch / "jupyter_runtime_dir" / f"jpserver-{server.pid}.json"
    end = time.monotonic() + timeout
    while time.monotonic() < end and server.poll() is None:
        if file.exists() and (text := file.read_text()):
            facts = json.loads(text)
            return Lab(facts["url"], facts["token"])
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start. Its log ends with:\n{(scratch / 'lab.log').read_text()[-2000:]}")


def _wait(browser: webdriver.Chrome, timeout: float, complaint: str, condition: Callable[[], object]) -> None:
    """Wait until condition() is true; a page that is still loading counts as false."""
    try:
        waiting = WebDriverWait(browser, timeout, ignored_exceptions=[JavascriptException])
        waiting.until(lambda _: condition())
    except TimeoutException:
        raise AssertionError(f"After {timeout:.0f} s {complaint}.") from None


def _cells(browser: webdriver.Chrome) -> list[dict]:
    return browser.execute_script(CELLS)


def _kernel_is_idle(browser: webdriver.Chrome) -> bool:
    return browser.execute_script(KERNEL_STATUS) == "idle"


def _all_ran(browser: webdriver.Chrome) -> bool:
    """Whether each code cell with something in it has an execution count and the kernel has nothing to do."""
    return all(cell["count"] for cell in _cells(browser) if cell["source"].strip()) and _kernel_is_idle(browser)


def _shows_widgets(cell: dict) -> bool:
    return any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in cell["outputs"])


def _cell_element(browser: webdriver.Chrome, index: int, timeout: float) -> WebElement | None:
    """The page's element of a cell, once its widgets are drawn; None if they are not in time."""
    cell = f".jp-Cell[data-windowed-list-index='{index}']"
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        browser.execute_script(SCROLL, index)  # again and again: pictures that load above push it out of sight
        time.sleep(0.5)
        if browser.find_elements(By.CSS_SELECTOR, f"{cell} .jupyter-widgets"):
            return browser.find_element(By.CSS_SELECTOR, cell)
    return None
