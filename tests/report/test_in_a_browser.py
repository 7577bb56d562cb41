"""The report in a real browser: no complaint, every picture, light and dark, phone and keyboard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
from browser import chromium, complaints, dark, inaccessible, lightness, overflow, unloaded

from pipelines import report


@pytest.fixture(scope="module")
def page(evaluated_as) -> str:
    runs = [evaluated_as(name) for name in ("first-model-with-a-rather-long-name", "second")]
    assert report.main([str(run) for run in runs]) == 0
    return (runs[0] / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def opened(browser, page: str) -> None:
    browser.get(page)
    # Pictures further down are loaded when they are seen: unfold and look at all of them.
    browser.execute_script(
        "document.querySelectorAll('details').forEach(one => one.open = true);"
        "document.querySelectorAll('img').forEach(one => { one.loading = 'eager'; });"
    )
    for _ in range(50):
        if not unloaded(browser):
            return
        browser.execute_async_script("setTimeout(arguments[0], 100)")


def test_no_complaint_and_every_picture(browser, page) -> None:
    opened(browser, page)
    assert unloaded(browser) == [] and complaints(browser) == []
    count = browser.execute_script("return document.images.length")
    assert count >= 4


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_it_fits_a_phone_and_a_screen(browser, page, width) -> None:
    browser.set_window_size(width, 900)
    opened(browser, page)
    assert overflow(browser) <= 0
    browser.set_window_size(1200, 1600)


def test_axe_finds_nothing_to_mend(browser, page) -> None:
    opened(browser, page)
    assert inaccessible(browser) == []


def test_light_and_dark(browser, page) -> None:
    opened(browser, page)
    dark(browser, False)
    light = lightness(browser)
    dark(browser, True)
    assert light > 200 and lightness(browser) < 60
    dark(browser, False)


def test_every_link_and_every_fold_is_reached_by_keyboard(browser, page) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(page)
    seen = []
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        if active.tag_name == "body":
            break
        seen.append((active.tag_name, active.text))
    folds = [("summary", one.text) for one in browser.find_elements(By.TAG_NAME, "summary")]
    links = [("a", one.text) for one in browser.find_elements(By.TAG_NAME, "a")]
    assert set(folds) | set(links) <= set(seen) and folds and links
