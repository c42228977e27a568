"""Working with the page: steps back, points, boxes, near and far, several pictures; Chromium, as in
test_browser.py. Its modules' functions are asked in the same browser."""

import numpy as np
import pytest
from browser import POINTER
from photos import photo
from PIL import Image

pytestmark = pytest.mark.browser


def test_any_step_can_be_undone(own):
    from selenium.webdriver import Keys

    seen, told = [own.pixels()], [[]]

    def after(act):
        act()
        own.settled()
        seen.append(own.pixels())
        told.append(own.texts(".words"))

    after(lambda: own.ask("the star"))
    after(lambda: own.ask("the red cross"))
    after(lambda: own.click(0.5, 0.5))
    after(lambda: own.drag([0.2, 0.2], [0.6, 0.9]))
    after(lambda: own.press("Hide"))
    after(lambda: own.press("Delete"))
    assert own.run("return document.activeElement.id") == "undo"  # not lost with the button
    after(lambda: own.press("Clear all"))
    assert len(set(seen)) >= len(seen) - 2 and told[-1] == []
    for before, words in zip(seen[-2::-1], told[-2::-1], strict=True):
        own.find("body").send_keys(Keys.CONTROL, "z")
        assert (own.pixels(), own.texts(".words")) == (before, words)
    assert not own.find("#undo").is_enabled()
    for after_it in seen[1:]:
        own.find("#redo").click()
        assert own.pixels() == after_it
    # What is typed has an undo of its own.
    own.find("#undo").click()
    own.find("#text").send_keys("a", Keys.CONTROL, "z")
    assert len(own.all("#found li")) == 1


def test_old_masks_are_drawn_again(own):
    """Each takes as much memory as the picture that is shown."""
    own.ask("the star")
    first = own.pixels()
    for i in range(12):
        own.click(0.1 + i / 20, 0.5)
        own.settled()
    count = "return new Set(steps.state.picture.steps.past.flatMap(({items}) => items)"
    count += ".map((one) => one.prompt).filter((prompt) => prompt.mask)).size"
    assert own.inside(count) == 8
    for _ in range(12):
        own.find("#undo").click()
    own.until(lambda: own.pixels() == first)


def test_the_last_of_rapid_clicks_is_answered(own):
    """The others are given up."""
    own.ask("the star")
    own.run("""
      const real = fetch;
      window.signals = [];
      window.fetch = (path, how) => {
        if (path === "/v1/segment") signals.push(how.signal);
        return real(path, how);
      };""")
    own.run(
        POINTER + "for (let i = 1; i < 10; i++) { const at = [i / 10, i / 12];"
        "send('pointerdown', at); send('pointerup', at, {shiftKey: i % 2 === 0}); }"
    )
    own.until(lambda: "9 points, 4 of them against" in own.texts(".figures")[0])
    own.settled()
    assert own.run("return signals.slice(0, -1).every((one) => one.aborted)")
    (expected,) = own.answers()
    assert len(own.prompts()[0]["points"]) == 9
    own.inside("steps.state.model.points = 9")
    own.click(0.5, 0.5)
    own.fails("A mask takes 9 points; take some back, or begin another mask.")
    assert len(own.prompts()[0]["points"]) == 9
    np.testing.assert_array_equal(own.masks()[0], expected)


def test_a_drag_draws_a_box_and_keys_do(own):
    from selenium.webdriver import Keys

    own.drag([0.2, 0.2], [0.6, 0.9])
    own.fails("Say first what to look for; points and boxes refine its mask.")
    own.ask("the star")
    alone = own.masks()[0]
    own.drag([0.6, 0.9], [0.2, 0.2])
    own.until(lambda: "a box" in own.texts(".figures")[0])
    own.settled()
    (prompt,) = own.prompts()
    np.testing.assert_allclose(prompt["box"], [13.5, 9.1, 41.5, 42.7], atol=0.2)
    (expected,) = own.answers()
    np.testing.assert_array_equal(own.masks()[0], expected)
    assert (expected != alone).any()
    own.press("Undo box")
    own.settled()
    np.testing.assert_array_equal(own.masks()[0], alone)
    # From the middle, two steps of a fiftieth to the right and one down.
    own.keys("b", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, "b")
    own.settled()
    np.testing.assert_allclose(own.prompts()[0]["box"], [34.5, 23.5, 37.3, 24.9], atol=0.01)
    own.keys("h")
    assert own.texts("#found .acts button")[2] == "Show"


def test_without_words_each_box_is_a_mask(own):
    """The server is told of words that nobody typed, since its model needs some."""
    own.inside("""
      steps.state.model.needs_text = false;
      const real = fetch;
      window.fetch = (path, how) => real(path,
        {...how, body: how?.body?.replace?.('"text":null', '"text":"the star"')});""")
    own.drag([0.1, 0.1], [0.4, 0.4])
    own.drag([0.5, 0.5], [0.9, 0.9])
    own.settled()
    own.click(0.7, 0.7, shift=True)
    own.settled()
    first, second = own.prompts()
    assert first["text"] is None and first["box"] and not first["points"]
    assert second["box"][0] > first["box"][2] and second["points"][0][2] == 0
    assert own.texts(".words") == ["mask 2", "mask 1"]
    own.press("Clear all")
    own.click(0.2, 0.2)
    own.settled()
    assert [len(one["points"]) for one in own.prompts()] == [1]
    assert own.texts(".words") == ["mask 3"]


def test_near_and_far(own):
    """A click means the same place, however near it is looked at."""
    own.ask("the star")
    far = own.pixels()
    own.run(
        POINTER + "canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: -600, cancelable: true,"
        "clientX: box.left + 0.25 * box.width, clientY: box.top + 0.5 * box.height}))"
    )
    own.until(lambda: own.find("#near").text == "246 %")
    assert own.pixels() != far
    own.click(0.25, 0.5)
    own.click(0.75, 0.5)
    own.settled()
    (x, y, _), (other, _, _) = own.prompts()[0]["points"]
    assert abs(x - 17) < 0.3 and abs(y - 23.5) < 0.3 and abs(other - x - 35 / 2.46) < 0.3
    own.keys("0")
    assert own.find("#near").text == "100 %" and not own.find("#whole").is_enabled()
    own.keys("+", "+")
    assert own.find("#near").text == "400 %"
    own.drag([0.2, 0.2], [0.7, 0.7], shiftKey=True)  # moves what is near
    assert own.inside("return steps.state.view.left") == pytest.approx(0.375 - 0.125)
    own.press("Whole")
    own.find("#undo").click()
    own.find("#undo").click()
    assert own.pixels() == far


def test_words_that_are_not_known_are_marked_while_one_types(own):
    field = own.find("#text")
    field.send_keys("the dog ☃ star")
    said = "It does not know “☃”. Of “dog” it knows the letters alone."
    own.until(lambda: own.find("#typed").text == said)
    assert own.texts("mark") == ["dog", "☃"] and field.get_attribute("aria-invalid") == "true"
    assert own.run("return document.getElementById('marks').textContent") == "the dog ☃ star"
    field.clear()
    own.ask("the star")
    own.until(lambda: not own.find("#typed").text and not own.all("mark"))
    said = {"cut": "green man", "unknown": ["a"], "letters": []}
    marked = own.inside("return known.marked('a cat a green man', given[0])", said)
    assert [text for text, odd in marked if odd] == ["a", "a", "green man"]
    own.find("summary").click()
    assert "It knows 44 words: the, small, large" in own.find("#knows").text
    told = own.inside("""
      const tell = (more) => {
        known.tellOfModel({...steps.state.model, trained: "It was trained on drawings.", ...more});
        return document.getElementById("about").textContent;
      };
      return [tell({reads: false}), tell({})];""")
    assert told[0].endswith(
        ". It was trained on drawings. It takes points and boxes, and no words."
    )
    assert "It takes words; " in told[1]
    own.find("summary").click()


def test_scores_in_words(page):
    def verdict(**said):
        about = {"nothing": None, "presence": None, "score": 0.5, "score_kind": "predicted_iou"}
        return page.inside("return list.verdict(given[0])", about | said)

    assert verdict(score=0.7) == "Sure (0.70)" and verdict(score=0.69) == "Fairly sure (0.69)"
    assert verdict(score=0.5) == "Fairly sure (0.50)" and verdict(score=-0.1) == "Unsure (-0.10)"
    assert verdict(score_kind="confidence") == "Confidence 0.50"
    assert verdict(nothing=True, presence=0.12) == "Nothing like that here (88 %)"


def test_a_mask_of_nothing_is_hidden_until_it_is_asked_for(own):
    empty = own.pixels()
    own.run("""
      const real = fetch;
      window.fetch = async (path, how) => {
        const said = await real(path, how);
        if (path !== "/v1/segment") return said;
        const told = await said.json();
        const more = {nothing: true, presence: 0.2};
        return Response.json({...told, answers: told.answers.map((x) => ({...x, ...more}))});
      };""")
    own.find("#text").send_keys("the star\n")
    own.until(lambda: "Nothing like that here (80 %)" in own.texts(".figures")[0])
    assert own.pixels() == empty
    own.press("Show")
    assert own.pixels() != empty


def test_several_pictures(own, tmp_path):
    from selenium.webdriver import Keys

    own.ask("the star")
    first = own.pixels()
    files = [tmp_path / "a.png", tmp_path / "b.txt", tmp_path / "c.png"]
    Image.fromarray(photo(1)).save(files[0])
    files[1].write_text("no picture")
    Image.fromarray(photo(2)).save(files[2])
    own.find("#file").send_keys("\n".join(map(str, files)))
    own.until(lambda: len(own.all("#strip button")) == 3)
    own.settled()
    own.fails("b.txt: This file is not a picture; expected")
    assert not own.all("#found li") and own.pixels() != first
    own.keys(Keys.PAGE_UP, Keys.PAGE_UP)
    own.until(lambda: own.texts(".words") == ["the star"])
    assert own.pixels() == first
    names = [one.get_attribute("aria-label") for one in own.all("#strip button")]
    assert names[0] == "Picture 1, own.png: 1 mask" and names[2] == "Picture 3, c.png: 0 masks"
    own.all("#strip button")[2].click()
    assert own.all("#strip button")[2].get_attribute("aria-pressed") == "true"


def test_pasted(own):
    script = """
      const data = new DataTransfer();
      if (arguments[0]) data.items.add(new File([arguments[1]], "a.png"));
      document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data}));"""
    own.run(script, True, "no picture")
    own.fails("This file is not a picture; expected")
    own.run(script, False, "")
    own.run("""
      const data = new DataTransfer();
      const canvas = Object.assign(document.createElement("canvas"), {width: 20, height: 10});
      canvas.toBlob((blob) => {
        data.items.add(new File([blob], "image.png"));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data}));
      });""")
    own.until(lambda: own.find("#status").text == "The picture has 20 × 10 pixels.")


def test_without_the_server_what_is_there_stays(own):
    own.ask("the star")
    seen = own.pixels()
    network = dict(latency=0, downloadThroughput=-1, uploadThroughput=-1)
    own.driver.execute_cdp_cmd("Network.enable", {})
    own.driver.execute_cdp_cmd("Network.emulateNetworkConditions", network | {"offline": True})
    gone = "The server does not answer; is it still running?"
    own.find("#text").send_keys("the cross\n")
    own.fails(gone)
    assert own.find("#text").get_attribute("value") == "the cross"
    own.click(0.5, 0.5)
    own.settled()
    own.fails(gone)
    assert own.pixels() == seen and own.prompts()[0]["points"] == []
    own.press("Draw an example")
    own.settled()
    own.fails(gone)
    own.press("SVG")
    own.until(lambda: own.find("#status").text == "Saved 1 mask.")
    own.driver.execute_cdp_cmd("Network.emulateNetworkConditions", network | {"offline": False})
    own.find("#text").send_keys("\n")
    own.until(lambda: len(own.all("#found li")) == 2)
    own.settled()
    assert not own.find("#message").is_displayed()


def test_opacity(own):
    """Without any, the masks' outlines alone lie on the picture."""
    own.ask("the star")
    own.run("""
      const slider = document.getElementById("opacity");
      slider.value = 0;
      slider.dispatchEvent(new Event("input"));""")
    said = own.inside("""
      const {canvas, photo} = steps.state.view;
      const plain = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
      plain.drawImage(photo, 0, 0);
      const read = (pen) => pen.getImageData(0, 0, canvas.width, canvas.height).data;
      const [seen, bare] = [read(canvas.getContext("2d")), read(plain)];
      const colour = steps.items()[0].colour;
      let [same, edge] = [0, 0];
      for (let i = 0; i < seen.length; i += 4) {
        const is = (other) => [0, 1, 2].every((k) => seen[i + k] === other[k]);
        if (is(bare.subarray(i, i + 4))) same++;
        else if (is(colour)) edge++;
      }
      return [seen.length / 4, same, edge];""")
    assert said[0] == said[1] + said[2] and 0 < said[2] < 0.3 * said[0]
