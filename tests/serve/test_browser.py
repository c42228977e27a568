"""The demo as a person uses it: Chromium without a window, on a server of its own.

Skipped where Chromium is not installed; tests/support/browser.py says what is needed.
"""

import re

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser


def test_a_visit(page, tmp_path):
    from selenium.webdriver import Keys

    page.fresh()
    page.driver.get_log("browser")  # what other tests did
    page.until(lambda: "64 px · reads words" in page.find("#model").text)
    page.shoot("1-empty")

    # A drawn picture, and one of the expressions that come with it.
    page.press("draw an example")
    page.until(lambda: page.find("#picture").is_displayed())
    empty = page.pixels()
    page.find("#suggestions button").click()
    page.until(lambda: re.search(r"picture|no pixel", page.texts(".figures")[0]))
    masked = page.until(lambda: (seen := page.pixels()) != empty and seen)

    # Points for it and against it, by mouse and by keyboard, and one taken back.
    page.click(0.3, 0.4)
    page.until(lambda: "1 point, 0 of them against" in page.texts(".figures")[0])
    page.click(0.8, 0.7, shift=True)
    page.until(lambda: "2 points, 1 of them against" in page.texts(".figures")[0])
    assert page.pixels() != masked
    page.shoot("2-points")
    page.find("#picture").send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ENTER)
    page.until(lambda: "3 points" in page.texts(".figures")[0])
    page.find("#picture").send_keys(Keys.BACKSPACE)
    page.until(lambda: "2 points" in page.texts(".figures")[0])

    # Another expression, typed, in another colour.
    page.find("#text").send_keys("the large square", Keys.ENTER)
    page.until(lambda: len(page.all(".figures")) == 2 and "…" not in page.texts(".figures")[0])
    colours = {line.value_of_css_property("border-left-color") for line in page.all("#found li")}
    assert len(colours) == 2

    # Where a word is looked at: by mouse, and by keyboard in one layer.
    before = page.pixels()
    page.hover("#found li:nth-child(1) .word:nth-child(2)")
    page.until(lambda: "“large”: the mask's pixels give it" in page.find("#word").text)
    mean = page.until(lambda: (seen := page.pixels()) != before and seen)
    page.shoot("3-word")
    page.find("#layer").send_keys(Keys.END)
    page.until(lambda: page.find("#layer-name").text == "decoder 1")
    page.hover("h1")
    page.until(lambda: page.pixels() == before)
    page.driver.execute_script("document.querySelectorAll('.word')[2].focus()")
    last = page.until(lambda: (seen := page.pixels()) != before and seen)
    assert last != mean
    page.driver.execute_script("document.activeElement.blur()")

    # The mask as a file, then away with it.
    page.press("Download")
    file = page.downloads / "mask-the-large-square.png"
    page.until(lambda: file.is_file())
    with Image.open(file) as mask:
        assert max(mask.size) == 64 and set(np.unique(np.asarray(mask))) <= {0, 255}
    page.press("Delete")
    page.until(lambda: len(page.all("#found li")) == 1)

    # What is no picture is said; a picture of one's own replaces the drawn one.
    (tmp_path / "notes.png").write_text("not a picture")
    page.find("#file").send_keys(str(tmp_path / "notes.png"))
    page.until(
        lambda: page.find("#message").text.startswith("This file is not a picture; expected")
    )
    page.shoot("4-message")
    (tmp_path / "big.png").write_bytes(bytes(21 * 2**20))
    page.find("#file").send_keys(str(tmp_path / "big.png"))
    page.until(lambda: page.find("#message").text == "big.png is larger than 20 MB.")
    Image.fromarray(np.full((30, 90, 3), 90, np.uint8)).save(tmp_path / "own.png")
    page.find("#file").send_keys(str(tmp_path / "own.png"))
    page.until(lambda: page.find("#status").text == "The picture has 90 × 30 pixels.")
    assert not page.all("#found li") and not page.find("#message").is_displayed()

    # Without words there is nothing to refine.
    page.click(0.5, 0.5)
    page.until(lambda: page.find("#message").text.startswith("Say first what to look for"))
    page.find("#text").send_keys("☃", Keys.ENTER)
    page.until(lambda: "The model knows no word" in page.find("#message").text)
    assert not page.all("#found li")

    # What it does not read of a text is named.
    page.find("#text").send_keys("the ☃ star", Keys.ENTER)
    page.until(lambda: page.texts("#found .unread") == ["It does not know “☃”."])

    # Nothing came from elsewhere, and only the refusals above were complained about.
    script = "return performance.getEntriesByType('resource').map((one) => one.name)"
    origin = page.home.rstrip("/")
    assert all(name.startswith((origin, "data:")) for name in page.driver.execute_script(script))
    severe = [line["message"] for line in page.driver.get_log("browser")]
    assert all("400 (Bad Request)" in line for line in severe), severe


def test_the_api_has_a_page_of_its_own(page):
    """Without a network, and within the page's rules of what may run."""
    page.driver.get(f"{page.home}docs")
    page.until(
        lambda: "/v1/segment" in page.texts(".opblock-summary-path")[0].replace("\u200b", "")
    )
    page.shoot("5-api")
    assert [line["message"] for line in page.driver.get_log("browser")] == []
    page.fresh()


def test_everything_has_a_name(page):
    """For people who hear the page: every control has a text, a label or an aria-label."""
    script = """
      for (const one of document.querySelectorAll("details")) one.open = true;
      return [...document.querySelectorAll("button, input, canvas, a, select")]
        .filter((one) => one.checkVisibility())
        .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))
        .map((one) => one.outerHTML)"""
    page.drawn().ask("the star")
    assert page.driver.execute_script(script) == []
    page.fresh()
