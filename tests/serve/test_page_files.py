"""What leaves the page, masks as files and links, and comes back the same; Chromium, as in
test_browser.py. Its modules' functions are asked in the same browser."""

import numpy as np
import pytest
from photos import photo, read
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from dit_jax.eval.prediction_files import encoded

pytestmark = pytest.mark.browser


def test_masks_as_files(own, tmp_path):
    """What COCO's own reader and a drawn SVG give are the pixels that are seen."""
    for old in own.downloads.glob("*.svg"):
        old.unlink()
    for text in ("the star", "the <red> & large cross"):
        own.ask(text)
    expected = own.answers()
    assert all(0.02 < mask.mean() < 0.98 for mask in expected)
    own.press("SVG")
    own.until(lambda: own.find("#status").text == "Saved 2 masks.")
    file = own.downloads / "own.svg"
    own.until(file.is_file)
    svg = file.read_text()
    assert "<title>the &lt;red&gt; &amp; large cross</title>" in svg
    drawn = np.array(own.inside(DRAWN, svg)).reshape(48, 70)
    np.testing.assert_array_equal(drawn > 0, expected[0] | expected[1])

    # Of several pictures, without what is hidden.
    own.press("Hide")
    Image.fromarray(photo(5)[:30]).save(tmp_path / "second.png")
    own.find("#file").send_keys(str(tmp_path / "second.png"))
    own.until(lambda: own.find("#status").text == "The picture has 70 × 30 pixels.")
    own.ask("a blue circle")
    expected = [expected[0], *own.answers()]
    own.press("COCO JSON")
    own.until(lambda: own.find("#status").text == "Saved 2 masks of 2 pictures.")
    file = own.downloads / "masks.json"
    own.until(file.is_file)
    found = COCO(str(file))
    assert [one["file_name"] for one in found.dataset["images"]] == ["own.png", "second.png"]
    assert [one["name"] for one in found.dataset["categories"]] == ["the star", "a blue circle"]
    for thing, mask in zip(found.dataset["annotations"], expected, strict=True):
        np.testing.assert_array_equal(found.annToMask(thing), mask)
        assert thing["area"] == mask.sum()
        runs = rle.encode(np.asfortranarray(mask))
        assert thing["bbox"] == rle.toBbox(runs).tolist()
    own.press("Hide")
    own.press("SVG")
    own.fails("No mask is shown; there is nothing to save.")


DRAWN = """
  const picture = new Image();
  picture.src = "data:image/svg+xml;utf8," + encodeURIComponent(given[0]);
  await picture.decode();
  const canvas = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight);
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  const {data} = pen.getImageData(0, 0, canvas.width, canvas.height);
  return Array.from({length: data.length / 4}, (_, i) => data[4 * i + 3]);"""


def test_files_of_any_mask(page):
    """Holes, corners that touch, single pixels and borders; nothing, and everything."""
    random = np.random.default_rng(0)
    masks = [random.random((9, 13)) < share for share in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)]
    masks.append(np.arange(200 * 90).reshape(200, 90) % 16411 < 16400)  # long runs, and more rows
    script = """
      return Promise.all(given[0].map(async (said) => {
        const mask = new runs.Runs(said), {width, height} = mask;
        const pen = new OffscreenCanvas(width, height).getContext("2d");
        pen.fill(new Path2D(files.pathOf(mask)), "evenodd");
        const {data} = pen.getImageData(0, 0, width, height);
        const path = Array.from({length: width * height}, (_, i) => data[4 * i + 3]);
        const png = new Uint8Array(await (await files.pngOf(mask)).arrayBuffer());
        return [mask.counts, path, [...png], [...mask.sampled(8, 4)]];
      }));"""
    given = [encoded(mask) for mask in masks]
    for mask, (counts, path, png, small) in zip(masks, page.inside(script, given), strict=True):
        height, width = mask.shape
        said = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        np.testing.assert_array_equal(rle.decode(said), mask)
        np.testing.assert_array_equal(np.reshape(path, mask.shape), 255 * mask)
        np.testing.assert_array_equal(read(bytes(png)), 255 * mask.astype(np.uint8))
        rows, columns = (
            (np.arange(n) * 2 + 1) * m // (2 * n) for n, m in ((4, height), (8, width))
        )
        np.testing.assert_array_equal(np.reshape(small, (4, 8)), mask[rows][:, columns])


def test_the_address_keeps_what_was_asked(own):
    from selenium.webdriver import Keys

    own.ask("the star ☃")
    own.drag([0.2, 0.2], [0.6, 0.9])
    own.settled()
    own.click(0.5, 0.5)
    own.settled()
    own.ask("the red cross")
    own.press("Hide")
    own.press("Copy link")
    own.until(lambda: "It opens on this machine" in own.find("#status").text)
    asked, seen, link = own.prompts(), own.pixels(), own.driver.current_url
    own.driver.refresh()
    own.until(lambda: len(own.all("#found .acts button")) == 9)
    own.settled()
    assert (own.prompts(), own.pixels(), own.driver.current_url) == (asked, seen, link)
    own.press("Show")
    shown = own.pixels()
    own.press("Hide")
    own.until(lambda: own.run("return document.URL") == link)
    own.run("""
      const buttons = [...document.querySelectorAll(".acts button")];
      buttons.find((one) => one.textContent === "Show").click();
      document.getElementById("close").click();""")
    own.until(lambda: own.find("#drop").is_displayed() and "Back" in own.find("#status").text)
    assert own.driver.current_url == own.home and not own.all("#found li")
    own.driver.back()
    own.until(lambda: len(own.all("#found .acts button")) == 9)
    own.settled()
    assert own.pixels() == shown != seen
    # In another tab it is what it was there, and each goes on by itself.
    first = own.driver.current_window_handle
    own.driver.switch_to.new_window("tab")
    own.driver.get(link)
    own.until(lambda: len(own.all("#found .acts button")) == 9)
    own.press("Clear all")
    own.driver.close()
    own.driver.switch_to.window(first)
    assert len(own.all("#found li")) == 2
    own.find("#picture").send_keys(Keys.PAGE_DOWN)  # there is no other
    assert own.pixels() == shown


@pytest.mark.parametrize("change", ["x", "e30", "null", "text", "id", "size"])
def test_a_link_that_is_not_whole(page, change):
    script = """
      const picture = {id: "a-_1", name: "a", width: 3, height: 2, texts: [], drawn: false,
        asked: [{text: "ü", points: [[1, 2, 1]], box: null, hidden: null}]};
      const whole = {form: 1, shown: 0, pictures: [picture]};
      const again = pictures.unpacked(pictures.packed(whole));
      if (JSON.stringify(again) !== JSON.stringify(whole)) return "lost";
      if (given[0] === "text") picture.asked[0].text = 3;
      if (given[0] === "id") picture.id = "../model";
      if (given[0] === "size") picture.width = -1;
      if (given[0] === "null") whole.pictures = [null];
      const direct = ["x", "e30"].includes(given[0]);
      pictures.unpacked(direct ? given[0] : pictures.packed(whole));"""
    said = page.inside(script, change)
    assert said == "Error: This link is not whole; open the picture anew."
