"""The page in a browser, by keys alone: labels, undo, moving, reloading, and what it looks like on a narrow window."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from photoflux.filtering.ledger import Ledger
from reviews import HOSTILE

ORDER = ["even.png", "pages.tif, page 2", "big.png", "above.jpg", "below.png", "one.png", HOSTILE]


@pytest.fixture
def url(job: Path) -> Iterator[str]:
    """The address of the page of a job, served by the command."""
    command = [sys.executable, "-m", "photoflux", "review", str(job), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, text=True)
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["url"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian's chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


class Seen:
    """What a page shows, and keys for it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.set_window_size(1100, 900)
        browser.get(url)
        self.until("document.body.dataset.ready === 'yes'")

    def until(self, condition: str) -> None:
        """Wait until something is so."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 60, 0.02).until(
            lambda b: b.execute_script(f"return Boolean({condition})"), condition
        )

    def press(self, *keys: str) -> None:
        """Press keys as a person does, and wait until all labels are kept."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()
        self.until("unsent === 0")

    def js(self, expression: str) -> Any:
        return self.browser.execute_script(f"return {expression}")

    @property
    def current(self) -> str:
        """The name of the image that has the focus."""
        focused, chosen = (
            self.js(f"{each}?.querySelector('.name')?.textContent")
            for each in ("document.activeElement", "document.querySelector('[aria-selected=true]')")
        )
        assert focused == chosen
        return focused

    @property
    def badges(self) -> list[str]:
        return self.js("[...document.querySelectorAll('.item')].map(i => i.querySelector('.badge').textContent)")

    @property
    def counted(self) -> str:
        return self.js("document.getElementById('counted').textContent")


@pytest.fixture
def seen(browser: Any, url: str) -> Iterator[Seen]:
    yield Seen(browser, url)
    # Nothing is asked for while the server ends.
    browser.get("about:blank")
    browser.get_log("browser")


def rows(job: Path) -> dict[str, str]:
    """The labels of the ledger."""
    ledger = Ledger(job)
    query = "SELECT path, page, label FROM labels JOIN sources ON id = source"
    found = {f"{os.fsdecode(path).rpartition('/')[2]} {page}": label for path, page, label in ledger.rows(query)}
    ledger.close()
    return found


def test_labels_by_keys_are_in_the_ledger_and_stay_after_a_reload(seen: Seen, job: Path):
    names = seen.js("[...document.querySelectorAll('.item .name')].map(n => n.textContent)")
    assert names == ORDER
    assert seen.current == "even.png"
    assert seen.counted == "0 of 7 labelled"
    seen.press("p")
    assert seen.current == "pages.tif, page 2"
    seen.press("N", "s", "n")
    assert rows(job) == {"even.png 0": "light", "pages.tif 2": "dark", "above.jpg 0": "dark"}
    assert seen.badges == ["light", "dark", "", "dark", "", "", ""]
    assert seen.counted == "3 of 7 labelled"
    assert seen.js("document.getElementById('state').textContent") == "saved"
    seen.press("u")
    assert (seen.current, rows(job)) == ("above.jpg", {"even.png 0": "light", "pages.tif 2": "dark"})
    seen.browser.refresh()
    seen.until("document.body.dataset.ready === 'yes'")
    assert seen.badges == ["light", "dark", "", "", "", "", ""]
    assert seen.current == "big.png", "the first without a label"
    assert seen.counted == "2 of 7 labelled"
    assert seen.browser.get_log("browser") == []


def test_undo_goes_back_step_by_step(seen: Seen, job: Path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    seen.press("p", "p", Keys.HOME, "n")
    assert rows(job) == {"even.png 0": "dark", "pages.tif 2": "light"}
    ActionChains(seen.browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    seen.until("unsent === 0")
    assert (seen.current, rows(job)) == ("even.png", {"even.png 0": "light", "pages.tif 2": "light"})
    seen.press("u", "u")
    assert rows(job) == {}
    seen.press("u")
    assert rows(job) == {}


def test_moving_by_keys(seen: Seen):
    from selenium.webdriver.common.keys import Keys

    columns = seen.js("columns()")
    assert 1 < columns < len(ORDER)
    steps: list[tuple[str, int]] = [
        (Keys.ARROW_RIGHT, 1), ("j", 2), ("k", 1), (Keys.ARROW_LEFT, 0), (Keys.ARROW_LEFT, 0), (Keys.ARROW_UP, 0),
        (Keys.ARROW_DOWN, columns), (Keys.ARROW_UP, 0), (Keys.END, 6), (Keys.ARROW_RIGHT, 6), (Keys.HOME, 0),
        (Keys.PAGE_DOWN, 6), (Keys.PAGE_UP, 0),
    ]  # fmt: skip
    for key, place in steps:
        seen.press(key)
        assert seen.current == ORDER[place], key


def test_the_image_larger_and_the_keys(seen: Seen, job: Path):
    from selenium.webdriver.common.keys import Keys

    shown = "document.getElementById('large').open"
    seen.press("j", "j", Keys.ENTER)
    assert seen.js(shown)
    seen.until("document.getElementById('picture').naturalWidth === 1600")
    assert seen.js("document.getElementById('large-name').textContent") == "big.png"
    seen.press("p")
    assert rows(job) == {"big.png 0": "light"}
    assert seen.js("document.getElementById('large-name').textContent") == "above.jpg"
    seen.press(Keys.ESCAPE)
    seen.until(f"!{shown}")
    assert seen.current == "above.jpg"
    seen.press(" ")
    assert seen.js(shown)
    seen.press(" ")
    seen.press("?")
    text = seen.js("document.getElementById('help').innerText")
    assert "“light”" in text and "“dark”" in text and "undo" in text
    seen.press("p")
    assert rows(job) == {"big.png 0": "light"}, "nothing is labelled behind the list of keys"
    seen.press("?")
    assert not seen.js("document.getElementById('help').open")


def test_buttons_do_what_the_keys_do(seen: Seen, job: Path):
    from selenium.webdriver.common.keys import Keys

    for name in ("positive", "negative", "skip", "positive", "undo"):
        seen.browser.find_element("id", name).click()
    seen.until("unsent === 0")
    assert rows(job) == {"even.png 0": "light", "pages.tif 2": "dark"}
    assert seen.current == "above.jpg"
    seen.browser.find_element("id", "negative").send_keys(Keys.ENTER)
    seen.until("unsent === 0")
    assert rows(job)["above.jpg 0"] == "dark"
    assert not seen.js("document.getElementById('large').open")
    seen.browser.find_elements("css selector", ".item")[4].click()
    assert seen.current == "below.png"


def test_every_image_is_seen_and_named(seen: Seen):
    seen.until("[...document.querySelectorAll('.item img')].filter(i => i.complete && i.naturalWidth).length === 7")
    labels = seen.js("[...document.querySelectorAll('.item')].map(i => i.getAttribute('aria-label'))")
    assert labels[0] == "even.png, score 0.500, not labelled"
    assert labels[-1].startswith(HOSTILE), "a name is a text, whatever it says"
    assert seen.browser.get_log("browser") == []
    loaded = seen.js("performance.getEntriesByType('resource').map(e => new URL(e.name).origin)")
    assert set(loaded) == {seen.js("location.origin")}


def test_a_label_that_is_not_kept_is_taken_back(seen: Seen, job: Path):
    ledger = Ledger(job, writes=True)
    ledger.change(
        "DELETE FROM items WHERE source IN (SELECT id FROM sources WHERE CAST(path AS TEXT) LIKE '%even.png')"
    )
    ledger.close()
    seen.press("p")
    assert seen.badges[0] == ""
    assert seen.counted == "0 of 7 labelled"
    failure = seen.js("document.getElementById('failure').innerText")
    assert failure == "The label of even.png is not kept. There is no such image."


def test_a_narrow_window_needs_no_scrolling_sideways(seen: Seen):
    seen.browser.set_window_size(500, 700)
    for width in ("100%", "320px"):
        seen.browser.execute_script("document.documentElement.style.width = arguments[0]", width)
        seen.until("document.querySelectorAll('.item').length === 7")
        assert seen.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_contrast_is_readable(seen: Seen, scheme: str):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    seen.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    seen.press("p", "n")
    script = """
        const light = (colour) => {
          const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        };
        const ground = (node) => {
          for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
          }
          return 'rgb(255, 255, 255)';
        };
        return [...document.querySelectorAll('header *, .item *')]
          .filter((node) => [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim()) && node.offsetParent)
          .map((node) => {
            const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
            return [node.className || node.id || node.tagName, (pair[0] + 0.05) / (pair[1] + 0.05)];
          });
    """
    ratios = seen.browser.execute_script(script)
    # WCAG 2.2, level AA, of text that is not large.
    assert len(ratios) > 20 and min(ratio for _, ratio in ratios) >= 4.5, sorted(ratios, key=lambda pair: pair[1])[:3]
