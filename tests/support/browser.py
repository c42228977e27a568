"""Chromium without a window, on the server's page.

Debian's `chromium` and `chromium-driver` are enough. With DIT_JAX_SCREENSHOTS=FOLDER the tests
leave pictures to look at.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from places import ROOT
from pycocotools import mask as rle

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1280,900",
)
MODULES = """
  const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);
  const names = ["steps", "files", "pictures", "list", "known", "runs"];
  Promise.all(names.map((name) => import(`/page/${name}.js`))).then(async (found) => {
    const [steps, files, pictures, list, known, runs] = found;
    %s
  }).then(done, (error) => done(String(error)));"""
POINTER = """
  const canvas = document.getElementById("picture"), box = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};  // which refuses pointers that no device has
  const send = (kind, [x, y], more = {}) => canvas.dispatchEvent(new PointerEvent(kind, {
    bubbles: true, pointerId: 1, pointerType: "mouse", button: 0,
    clientX: box.left + x * box.width, clientY: box.top + y * box.height, ...more}));
"""
PATIENCE = 60  # seconds, on a machine that has other things to do


@contextlib.contextmanager
def serving(model):
    """The address of a model's demo, started as people start it."""
    command = [sys.executable, "launch.py", "--mode=demo", f"--model={model}", "--port=0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://127.0.0.1:\d+", server.stdout.readline())[0]
            wait_until_compiled(address)
            yield address
        finally:
            server.terminate()


def wait_until_compiled(address):
    """Until then the page says so; raises TimeoutError after PATIENCE."""
    start = time.monotonic()
    while time.monotonic() - start < PATIENCE:
        with contextlib.suppress(urllib.error.HTTPError):  # 503
            urllib.request.urlopen(f"{address}/readyz").close()
            return
        time.sleep(0.2)
    raise TimeoutError(f"{address} was not compiled within {PATIENCE} s.")


@contextlib.contextmanager
def browsing(address, folder):
    """A `Page`; `folder` takes downloads."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in (*SWITCHES, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(DRIVER)) as driver:
        driver.command_executor.client_config.timeout = PATIENCE
        driver.execute_cdp_cmd(
            "Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
        )
        driver.get(address)
        yield Page(driver, folder)


class Page:
    """What a person does with the page, and sees on it."""

    def __init__(self, driver, folder):
        self.driver, self.downloads, self.home = driver, folder, driver.current_url

    def find(self, css):
        return self.driver.find_element("css selector", css)

    def all(self, css):
        return self.driver.find_elements("css selector", css)

    def texts(self, css):
        return [element.text for element in self.all(css)]

    def until(self, condition):
        """Wait for what is true at last; elements may be replaced while it is asked."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(WebDriverException, IndexError):
                if found := condition():
                    return found
            time.sleep(0.05)
        self.shoot("failed")
        raise AssertionError(f"{self.find('#message').text!r}, {self.texts('#found li')}")

    def press(self, name):
        """A button by what it says."""
        buttons = [b for b in self.all("button, a.button") if b.text == name and b.is_displayed()]
        buttons[0].click()

    def click(self, across, down, *, shift=False):
        """On the picture, at shares of its width and height."""
        from selenium.webdriver import ActionChains, Keys

        canvas = self.find("#picture")
        size = canvas.size
        offset = (round((across - 0.5) * size["width"]), round((down - 0.5) * size["height"]))
        chain = ActionChains(self.driver, duration=50)
        chain = chain.key_down(Keys.SHIFT) if shift else chain
        chain = chain.move_to_element_with_offset(canvas, *offset).click()
        (chain.key_up(Keys.SHIFT) if shift else chain).perform()

    def hover(self, css):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=50).move_to_element(self.find(css)).perform()

    def pixels(self):
        """The canvas as it is seen now."""
        return self.run("return document.getElementById('picture').toDataURL()")

    def fresh(self):
        """The page anew, without what its address kept."""
        self.driver.get(self.home)
        self.until(lambda: "px" in self.find("#model").text)
        return self

    def drawn(self):
        """The page anew, with a drawn picture open."""
        self.fresh().press("draw an example")
        self.until(lambda: self.find("#picture").is_displayed())
        return self

    def ask(self, text):
        """Typed, and answered."""
        from selenium.webdriver import Keys

        count = len(self.all("#found li"))
        self.find("#text").send_keys(text, Keys.ENTER)
        self.until(lambda: self.find("#status").text.endswith(f"{text}."))
        assert len(self.all("#found li")) == count + 1

    def fails(self, sentence):
        """Wait for a message, which has to be in sight."""
        self.until(lambda: self.find("#message").text.startswith(sentence))
        assert self.is_seen("#message")

    def is_seen(self, css):
        """Whether all of an element is within the window."""
        return self.run(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return box.height > 0 && box.top > -1 && box.bottom < innerHeight + 1",
            css,
        )

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def inside(self, script, *arguments):
        """What a script returns that has the page's modules by their names, and its arguments as
        `given`."""
        return self.driver.execute_async_script(MODULES % script, *arguments)

    def settled(self):
        """Wait until everything that was asked is answered."""
        self.until(lambda: not self.all("body[aria-busy]"))

    def prompts(self):
        """What is asked of the picture now."""
        asked = "({prompt: {text, points, box}}) => ({text, points, box})"
        return self.inside(f"return steps.items().map({asked})")

    def masks(self):
        """What is shown as the answers, `[H, W]` each."""
        said = self.inside("""
          const masks = steps.items().map((one) => one.prompt.said.mask);
          return masks.map((mask) => [[...mask.rows(0, mask.height)], mask.height, mask.width]);""")
        return [np.reshape(values, (height, width)) for values, height, width in said]

    def answers(self):
        """The server's own masks for what is asked of the picture."""
        key = self.inside("return steps.state.picture.id")
        body = json.dumps({"picture": key, "prompts": self.prompts()}).encode()
        kind = {"Content-Type": "application/json"}
        about = urllib.request.Request(f"{self.home}v1/segment", body, kind)
        with urllib.request.urlopen(about) as said:
            return [rle.decode(one["mask"]) for one in json.load(said)["answers"]]

    def drag(self, start, end, **more):
        """Over the picture, between shares of its width and height."""
        steps = [("pointerdown", start), ("pointermove", end), ("pointerup", end)]
        script = "for (const [kind, at] of arguments[0]) send(kind, at, arguments[1])"
        self.run(POINTER + script, steps, more)

    def keys(self, *pressed):
        """On the picture."""
        self.find("#picture").send_keys(*pressed)

    def shoot(self, name):
        if folder := os.environ.get("DIT_JAX_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))
