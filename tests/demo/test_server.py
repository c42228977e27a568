"""The demo's requests, as its page sends them and as nobody should."""

import base64
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from photos import encoded, opened, photo, read
from places import ROOT
from small_models import PLAIN, write_model

from dit_jax import Segmenter, viz
from dit_jax.demo import app as demo_app
from dit_jax.demo import server, sessions
from dit_jax.demo.app import ANSWERS, PICTURES, make_app
from dit_jax.demo.sessions import Gone, LruCache
from dit_jax.models.architecture import Injection
from dit_jax.weights import hub

PAGE = ROOT / "dit_jax/demo/page"
TEXT = "the red star"


def test_what_the_page_is_told_of_the_model(client):
    said = client.get("/api/model").json
    assert said["name"] == "runs/my model" and said["size"] == 64
    assert (said["reads"], said["needs_text"], said["presence"]) == (True, True, False)
    assert said["colours"][0] == list(viz.COLOURS[0])


def test_a_picture_and_a_mask(client, segmenter):
    picture = opened(client)
    assert (picture["width"], picture["height"], picture["view"]) == (70, 48, [512, 351])
    jpeg = client.get(f"/api/pictures/{picture['id']}.jpg")
    assert jpeg.mimetype == "image/jpeg" and read(jpeg.data).shape == (351, 512, 3)
    said = client.post("/api/segment", json={"picture": picture["id"], "text": TEXT}).json
    known = {"id", "mask", "share", "score", "score_kind", "presence", "nothing"}
    known |= {"cut", "unknown"}
    assert set(said) == known
    assert (said["cut"], said["unknown"]) == ("", [])
    (expected,) = segmenter(photo(), TEXT)
    assert (said["score"], said["score_kind"]) == (pytest.approx(expected.score), "confidence")
    assert 0.05 < expected.mask.mean() < 0.95  # or nothing here could fail
    download = client.get(f"/api/answers/{said['id']}/mask.png")
    assert download.headers["Content-Disposition"] == 'attachment; filename="mask-the-red-star.png"'
    np.testing.assert_array_equal(read(download.data) > 0, expected.mask)
    kind, data = said["mask"].split(",")
    assert kind == "data:image/png;base64"
    shown = read(base64.b64decode(data))
    assert shown.shape == (351, 512)
    assert said["share"] == pytest.approx((shown > 0).mean())
    assert abs(said["share"] - expected.mask.mean()) < 0.02


def test_words_that_are_not_read(client):
    long = "the \u661f of the large square near the small red circle with blue stripes"
    ask = {"picture": opened(client)["id"], "text": long}
    said = client.post("/api/segment", json=ask).json
    assert (said["cut"], said["unknown"]) == ("the small red circle with blue stripes", ["\u661f"])


def test_points_refine(client, segmenter):
    picture = opened(client)["id"]
    ask = {"picture": picture, "text": TEXT}
    before = client.post("/api/segment", json=ask).json
    points = [[20.5, 30, 1], [60, 5, 0]]
    after = client.post("/api/segment", json=ask | {"points": points}).json
    assert before["mask"] != after["mask"]
    (expected,) = segmenter(photo(), TEXT, points=points)
    found = read(client.get(f"/api/answers/{after['id']}/mask.png").data) > 0
    np.testing.assert_array_equal(found, expected.mask)


def test_word_maps(client):
    picture = opened(client)["id"]
    answer = client.post("/api/segment", json={"picture": picture, "text": TEXT}).json["id"]
    said = client.post("/api/words", json={"answer": answer}).json
    assert [word["text"] for word in said["words"]] == TEXT.split()
    assert said["layers"] == ["block 1", "block 2", "decoder 1"] and said["remark"] is None
    assert np.array(said["shares"]).shape == (3, 3)
    assert (np.sum(said["shares"], axis=1) <= 1).all()
    maps = np.frombuffer(base64.b64decode(said["maps"]), np.uint8).reshape(3, 3, *said["grid"])
    assert (maps.max(axis=(1, 2, 3)) == 255).all() and len(said["tops"]) == 3
    assert said["content"] == [10, 0, 44, 64] and said["canvas"] == 64


def test_an_example_comes_with_words_that_fit(client):
    said = client.post("/api/examples").json
    assert len(said["texts"]) == 2 and max(said["view"]) == 512 and said["drawn"] is True
    asked = {"picture": said["id"], "text": said["texts"][0]}
    assert client.post("/api/segment", json=asked).status_code == 200


def test_a_drawn_picture_can_be_saved(client, segmenter):
    """As the pixels that were asked about; nobody needs what was uploaded."""
    said = client.post("/api/examples").json
    saved = client.get(f"/api/pictures/{said['id']}.png")
    assert saved.headers["Content-Disposition"] == 'attachment; filename="drawing.png"'
    assert read(saved.data).shape == (said["height"], said["width"], 3)
    again = client.post("/api/pictures", data=saved.data).json
    assert (again["drawn"], again["view"]) == (False, said["view"])
    first, second = (
        client.post("/api/segment", json={"picture": one["id"], "text": TEXT}).json["mask"]
        for one in (said, again)
    )
    assert first == second
    refused = client.get(f"/api/pictures/{again['id']}.png")
    assert refused.status_code == 404 and "was not drawn here" in refused.json["error"]


def test_plain_sam_takes_points_alone(tmp_path):
    segmenter = Segmenter.from_pretrained(write_model(tmp_path / "sam", **PLAIN), batch_size=1)
    client = make_app(segmenter, name="sam").test_client()
    assert client.get("/api/model").json["reads"] is False
    picture = opened(client)["id"]
    said = client.post("/api/segment", json={"picture": picture, "points": [[9, 9, 1]]}).json
    download = client.get(f"/api/answers/{said['id']}/mask.png")
    assert 'filename="mask-points.png"' in download.headers["Content-Disposition"]
    failed = client.post("/api/words", json={"answer": said["id"]})
    assert failed.status_code == 400 and "there are no words" in failed.json["error"]
    failed = client.post("/api/segment", json={"picture": picture, "text": "x"})
    assert failed.status_code == 400 and "plain SAM, which reads no text" in failed.json["error"]


def test_a_model_that_may_say_nothing(tmp_path):
    folder = write_model(tmp_path / "m", injection=Injection.NONE, presence=True)
    client = make_app(Segmenter.from_pretrained(folder, batch_size=1), name="m").test_client()
    assert client.get("/api/model").json["needs_text"] is False
    asked = {"picture": opened(client)["id"], "text": TEXT}
    said = client.post("/api/segment", json=asked).json
    assert said["nothing"] == (said["presence"] < 0.5)
    remark = client.post("/api/words", json={"answer": said["id"]}).json["remark"]
    assert remark.startswith("no text enters this model's image encoder")


def test_only_the_latest_are_kept(client):
    kept = LruCache(2, sentence="gone.")
    keys = [kept.add(value) for value in "ab"]
    assert kept[keys[0]] == "a"
    third = kept.add("c")
    with pytest.raises(Gone, match="gone."):
        kept[keys[1]]
    assert (kept[keys[0]], kept[third], len(kept)) == ("a", "c", 2)
    first = opened(client)["id"]
    for _ in range(PICTURES):
        last = opened(client)["id"]
    assert client.get(f"/api/pictures/{first}.jpg").status_code == 404
    assert client.get(f"/api/pictures/{last}.jpg").status_code == 200


def test_masks_of_large_pictures_are_not_kept(segmenter):
    """Neither what is shown nor what is downloaded stays in memory with the answer."""
    demo = demo_app.Demo(segmenter, name="m")
    picture = demo.upload(encoded(photo(height=900, width=1700)))
    assert picture["view"] == [1280, 678]
    for _ in range(ANSWERS + 3):
        key = demo.segment({"picture": picture["id"], "text": TEXT})["id"]
        demo.mask(key)
    assert len(demo.answers) == ANSWERS
    assert "mask" not in vars(demo.answers[key].segmentation)


def test_a_failure_is_told_without_its_insides(client, monkeypatch, caplog):
    def fail(*arguments, **how):
        raise RuntimeError("secret")

    monkeypatch.setattr(demo_app, "open_upload", fail)
    said = client.post("/api/pictures", data=encoded(photo()))
    assert said.status_code == 500
    assert said.json == {"error": "the demo failed at this; its terminal says why."}
    assert "secret" in caplog.text


def test_the_page_needs_nothing_from_elsewhere(client):
    """Every file is packaged and served, and none names another server."""
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "page/*" in packaged["package-data"]["dit_jax.demo"]
    index = client.get("/", buffered=True).get_data(as_text=True)
    for name in re.findall(r'"/page/([\w.]+)"', index):
        assert client.get(f"/page/{name}", buffered=True).status_code == 200
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8")
        assert "//cdn" not in text and not re.search(r"https?://", text), file
        for name in re.findall(r'from "\./([\w.]+)"', text):
            assert (PAGE / name).is_file()


def test_which_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert server.chosen(Path("a")) == Path("a")
    assert server.chosen(None) == Path("mini_sam")  # by its name
    assert hub.local(server.chosen(None)) == hub.SHIPPED / "mini_sam"
    server.QUICKSTART.mkdir(parents=True)
    assert server.chosen(None) == server.QUICKSTART


def test_ports(segmenter):
    make = dict(name="m", host="127.0.0.1")
    first = server.make_server(segmenter, **make, port=0)
    try:
        taken = int(first.effective_port)
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {taken}: .*in use"):
            server.make_server(segmenter, **make, port=taken)
    finally:
        first.close()
    with pytest.raises(ValueError, match="--port is 70000; expected 1 to 65535"):
        server.make_server(segmenter, **make, port=70000)


def test_without_its_packages(segmenter, monkeypatch):
    monkeypatch.setitem(sys.modules, "waitress", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"the demo needs waitress: pip install 'dit_jax\[demo\]'"
    ):
        server.make_server(segmenter, name="m", host="127.0.0.1", port=0)


def test_small_pictures_are_shown_larger():
    assert sessions._viewed(np.zeros((10, 4, 3), np.uint8)).shape == (512, 205, 3)
    assert sessions._viewed(np.zeros((600, 900, 3), np.uint8)).shape == (600, 900, 3)
    assert sessions._viewed(np.zeros((1, 3000, 3), np.uint8)).shape == (1, 1280, 3)
