"""A headless Chromium for the tests of pages; they skip with a reason where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def chromium(width: int = 1200, height: int = 1600) -> Iterator[Any]:
    """A browser that keeps what pages log."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("Chromium not found: expected chromium and chromedriver in PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*_FLAGS, f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield found
    finally:
        found.quit()


def complaints(browser: Any) -> list[str]:
    """What pages wrote to the console as a warning or an error."""
    return [
        entry["message"] for entry in browser.get_log("browser")
        if entry["level"] in ("WARNING", "SEVERE")
    ]  # fmt: skip


PICTURES = """
return [...document.images].map(image => [image.alt, image.complete && image.naturalWidth > 0]);
"""


def unloaded(browser: Any) -> list[str]:
    """The pictures of a page that are not there."""
    return [alt for alt, there in browser.execute_script(PICTURES) if not there]


OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth;"


def overflow(browser: Any) -> int:
    """By how many pixels a page is wider than its window."""
    return int(browser.execute_script(OVERFLOW))


def dark(browser: Any, on: bool) -> None:
    """Tells pages that their reader prefers dark, or light."""
    value = "dark" if on else "light"
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": value}]},
    )


def inaccessible(browser: Any) -> list[str]:
    """What axe finds wrong with a page for those who cannot see or point well, a line each.

    Both themes are looked at; the page is left in the light one.
    """
    rules = pytest.importorskip("axe_core_python")
    script = (Path(rules.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    found = []
    for theme in (True, False):
        dark(browser, theme)
        browser.execute_script(script)
        answer = browser.execute_async_script("axe.run().then(arguments[0])")
        assert answer["passes"], "axe looked at nothing"
        found += [
            f"{rule['id']} ({rule['impact']}): {node['html']}"
            for rule in answer["violations"]
            for node in rule["nodes"]
        ]
    return found


LIGHTNESS = """
const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
return (r + g + b) / 3;
"""


def lightness(browser: Any) -> float:
    """Of the page's ground, 0 to 255."""
    return float(browser.execute_script(LIGHTNESS))
