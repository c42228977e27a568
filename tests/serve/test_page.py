"""What the page once did wrong, each as a person met it: Chromium, as in test_browser.py."""

import numpy as np
import pytest
from PIL import Image

from dit_jax.serve.desk import PICTURES

pytestmark = pytest.mark.browser
OPEN_OFTEN = """
  const [times, done] = arguments;
  for (let i = 0; i < times; i++) await fetch("/v1/examples", {method: "POST"});
  done();"""


@pytest.fixture
def phone(page):
    """The page on a screen of 390 × 844."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield page
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_word_map_never_hides_a_new_answer(page):
    page.drawn().ask("the star")
    page.run("""
      window.said = [];
      new MutationObserver(() => said.push(document.getElementById("status").textContent))
        .observe(document.getElementById("status"), {childList: true});""")
    page.hover("#found .word:nth-child(2)")
    page.until(lambda: "“star”" in page.find("#word").text)
    page.ask("the large square")  # while the mouse rests where the word was
    seen = page.pixels()
    page.hover("h1")
    assert seen == page.pixels()
    assert "Looking …" in page.run("return said")
    assert not any("compiled" in text for text in page.run("return said"))
    # A clicked one goes with a point, too.
    page.find("#found .word:nth-child(1)").click()
    page.until(lambda: "“the”" in page.find("#word").text)
    page.click(0.5, 0.5)
    page.until(lambda: "1 point" in page.texts(".figures")[0])
    assert page.find("#word").text != "“the”" and not page.all(".word[aria-pressed=true]")


def test_the_compiler_is_told_of_while_it_works(page):
    """By the server, at the first question; the script makes it say so, whatever it does."""
    script = """
      const real = fetch;
      fetch = async (path, how) => path !== "/v1/model" ? real(path, how)
        : Response.json({...await (await real(path)).json(), ready: false});
      window.said = [];
      new MutationObserver(() => said.push(document.getElementById("status")?.textContent))
        .observe(document, {childList: true, subtree: true});"""
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    page.drawn().ask("the star")
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    assert "Looking … (the model is still being compiled)" in page.run("return said")


def test_nothing_is_said_so(page):
    from selenium.webdriver import Keys

    page.drawn()
    page.run("""
      const real = fetch;
      window.fetch = async (path, how) => {
        const said = await real(path, how);
        if (path !== "/v1/segment") return said;
        const told = await said.json();
        return Response.json({...told, answers: told.answers.map((x) => ({...x, nothing: true}))});
      };""")
    page.find("#text").send_keys("the star", Keys.ENTER)
    said = "Nothing like “the star” here, the model says."
    page.until(lambda: page.find("#status").text == said)
    page.fresh()


def test_a_clicked_word_keeps_its_map(page):
    from selenium.webdriver import Keys

    page.drawn().ask("the star")
    page.ask("the red cross")
    masks = page.pixels()
    word = "#found li:nth-child(2) .word:nth-child(2)"  # of the mask that is not being refined
    page.find(word).click()
    mean = page.until(lambda: "“star”" in page.find("#word").text and page.pixels())
    page.hover("#layer")
    assert page.pixels() == mean != masks
    page.find("#layer").send_keys(Keys.END)
    page.until(lambda: page.pixels() not in (mean, masks))
    assert "decoder 1" in page.find("#word").text
    page.hover("h1")
    page.find("body").send_keys(Keys.ESCAPE)
    assert page.pixels() == masks
    page.find(word).click()
    assert page.find(word).get_attribute("aria-pressed") == "true"
    page.find(word).click()
    assert page.find(word).get_attribute("aria-pressed") == "false"
    assert page.pixels() == masks


def test_old_masks_stay_where_their_picture_is_gone(page):
    page.drawn().ask("the blue star")
    page.driver.execute_async_script(OPEN_OFTEN, PICTURES)
    page.press("Download")
    page.until((page.downloads / "mask-the-blue-star.png").is_file)
    page.hover("#found .word:nth-child(3)")
    page.fails("This picture is no longer open; choose it again.")
    page.find("#text").send_keys("the red cross\n")
    page.fails("This picture is no longer open; choose it again.")
    assert page.find("#text").get_attribute("value") == "the red cross"
    page.press("Save the drawing")
    page.fails("This picture is no longer open; choose it again.")


def test_a_drawing_can_be_saved(page):
    page.drawn()
    page.press("Save the drawing")
    file = page.downloads / "drawing.png"
    page.until(file.is_file)
    with Image.open(file) as drawing:
        said = page.find("#status").text
        assert said in ("", f"The picture has {drawing.width} × {drawing.height} pixels.")
        assert np.asarray(drawing).std() > 5
    page.find("#file").send_keys(str(file))
    page.until(lambda: not page.find("#save").is_displayed())


def test_on_a_phone(phone):
    page = phone.drawn()
    for text in ("a star", "the red star", "a blue star", "the large star"):
        page.ask(text)
    assert page.texts(".words")[0] == "the large star"  # the newest first, in sight
    assert page.is_seen("#found li")
    page.find("#against").click()
    page.click(0.3, 0.3)
    page.until(lambda: "1 point, 1 of them against" in page.texts(".figures")[0])
    page.click(0.6, 0.3, shift=True)
    page.until(lambda: "2 points, 1 of them against" in page.texts(".figures")[0])
    for unknown in ("☃", "☃☃"):
        page.find("#text").send_keys(unknown, "\n")
        page.fails("The model knows no word")
        assert page.find("#text").get_attribute("value") == unknown
    page.find("#found li:last-child .word").click()
    page.until(lambda: "“a”" in page.find("#word").text)
    page.until(lambda: page.is_seen("#picture") and page.is_seen("#layer"))
    assert page.run("return document.documentElement.scrollWidth") == 390


def test_words_are_copied_with_blanks(page):
    page.drawn().ask("the large heart")
    page.run("getSelection().selectAllChildren(document.querySelector('.words'))")
    assert page.run("return getSelection().toString()").split() == ["the", "large", "heart"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_can_be_used_has_an_edge(page, scheme):
    """WCAG 1.4.11: 3 to 1 against what lies beside it; 4.5 to 1 for texts."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.drawn().ask("the star")
    paper, card = (colour(page, css, "background-color") for css in ("body", "#found li"))
    assert (sum(paper) > 600) is (scheme == "light")
    for css in ("#text", "#tools button", "#found .acts button", "#suggestions button"):
        for ground in (paper, card):
            assert contrast(colour(page, css, "border-top-color"), ground) >= 3, css
    placeholder = "return getComputedStyle(document.getElementById('text'), '::placeholder').color"
    assert contrast(numbers(page.run(placeholder)), paper) >= 4.5
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_who_hears_the_page(page):
    """The canvas takes keys, so it is no image; sentences about words are read out."""
    assert page.find("#picture").get_attribute("role") == "application"
    assert page.find("#word").get_attribute("aria-live") == "polite"


def colour(page, css, name):
    return numbers(page.find(css).value_of_css_property(name))


def numbers(text):
    return [float(part) for part in text.split("(")[1].rstrip(")").split(",")[:3]]


def contrast(one, other):
    lights = sorted(0.05 + luminance(values) for values in (one, other))
    return lights[1] / lights[0]


def luminance(values):
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.divide(values, 255)
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))
