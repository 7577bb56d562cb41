"""The page in a real browser: an image in, prediction, saliency and attack out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1]))
from browser import chromium, complaints, dark, inaccessible, lightness, overflow, unloaded


@pytest.fixture(scope="module")
def browser():
    with chromium(1100, 1300) as found:
        yield found


@pytest.fixture
def near(tmp_path) -> Path:
    """Red, but only just."""
    path = tmp_path / "near.png"
    Image.new("RGB", (40, 30), (130, 126, 120)).save(path)
    return path


def wait_until(browser, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda one: one.execute_script(f"return {script}"))


def choose(browser, path: Path) -> None:
    browser.find_element("id", "file").send_keys(str(path))


def text(browser, name: str) -> str:
    return browser.find_element("id", name).text


def test_an_image_is_seen_explained_and_attacked(browser, client, near) -> None:
    browser.get(client.address)
    assert text(browser, "title") == "colours" and "3 classes" in text(browser, "about")
    choose(browser, near)
    wait_until(browser, "document.getElementById('verdict').textContent !== ''")
    assert text(browser, "clean").startswith("red")
    assert text(browser, "verdict").startswith("Broken: red became")
    assert unloaded(browser) == [] and complaints(browser) == []
    assert inaccessible(browser) == []


def test_a_weaker_attack_is_withstood(browser, client, tmp_path) -> None:
    Image.new("RGB", (20, 20), (220, 40, 40)).save(tmp_path / "red.png")
    browser.get(client.address)
    choose(browser, tmp_path / "red.png")
    wait_until(browser, "document.getElementById('verdict').textContent !== ''")
    browser.execute_script(
        "const eps = document.getElementById('eps'); eps.value = 1;"
        "eps.dispatchEvent(new Event('input')); eps.dispatchEvent(new Event('change'));"
    )
    wait_until(browser, "document.getElementById('shown').textContent === '1/255'")
    wait_until(browser, "document.getElementById('verdict').textContent.startsWith('Withstood')")
    assert text(browser, "verdict") == "Withstood: still red."
    assert text(browser, "adversarial").startswith("red")


def test_a_slider_moved_too_early_does_not_keep_the_image_before(browser, client, tmp_path) -> None:
    for name, colour in (("red", (220, 40, 40)), ("blue", (40, 40, 220))):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")
    browser.get(client.address)
    choose(browser, tmp_path / "red.png")
    wait_until(browser, "document.getElementById('verdict').textContent !== ''")
    browser.execute_script(
        "const quick = window.fetch, wait = ms => new Promise(done => setTimeout(done, ms));"
        "window.fetch = async (path, options) => {"
        "  if (path === 'explain') await wait(300);"
        "  return quick(path, options);"
        "};"
    )
    choose(browser, tmp_path / "blue.png")
    browser.execute_script("document.getElementById('eps').dispatchEvent(new Event('change'));")
    wait_until(browser, "document.getElementById('clean').textContent.startsWith('blue')")
    wait_until(browser, "document.getElementById('verdict').textContent.includes('blue')")
    assert text(browser, "verdict") == "Withstood: still blue."


def test_what_is_no_image_is_told_in_words(browser, client, tmp_path) -> None:
    (tmp_path / "none.png").write_bytes(b"this is no image")
    browser.get(client.address)
    choose(browser, tmp_path / "none.png")
    wait_until(browser, "document.getElementById('message').classList.contains('error')")
    assert "cannot be read" in text(browser, "message")
    # The refusal itself is logged by the browser; nothing else is.
    assert all("400" in one for one in complaints(browser))


@pytest.mark.parametrize("width", [360, 1100])
def test_it_fits_and_has_a_dark_face(browser, client, near, width) -> None:
    browser.set_window_size(width, 1000)
    browser.get(client.address)
    choose(browser, near)
    wait_until(browser, "document.getElementById('verdict').textContent !== ''")
    assert overflow(browser) <= 0
    dark(browser, True)
    assert lightness(browser) < 60
    dark(browser, False)
    assert lightness(browser) > 200
