"""The server's routes, as its page and programs ask them."""

import asyncio
import base64
import json
import re
import sys
import threading
import tomllib

import cv2
import numpy as np
import pytest
from photos import asking, encoded, opened, photo, read
from places import ROOT
from pycocotools import mask as rle
from small_models import PLAIN, write_model

from dit_jax import Segmenter, viz
from dit_jax.models.architecture import Injection
from dit_jax.serve import desk, schema, server, sessions
from dit_jax.serve.sessions import Gone, LruCache
from dit_jax.weights import hub

PAGE = ROOT / "dit_jax/serve/page"
SVG = "http://www.w3.org/2000/svg"  # a name, which nobody looks up
TEXT = "the red star"
PROMPTS = [
    {"text": TEXT},
    {"text": TEXT, "points": [[20.5, 30, 1], [60, 5, 0]]},
    {"text": "a blue circle", "box": [3, 4, 50, 40]},
]


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("sam") / "sam", **PLAIN)
    return Segmenter.from_pretrained(folder, batch_size=1)


def segment(client, prompts, **more):
    """The answers to prompts about a picture, which is opened first."""
    asked = {"picture": opened(client)["id"], "prompts": prompts, **more}
    said = client.post("/v1/segment", json=asked)
    assert said.status_code == 200, said.text
    assert said.json()["size"] == [48, 70]
    return said.json()["answers"]


def test_what_is_told_of_the_model(client):
    said = client.get("/v1/model").json()
    assert said["name"] == "runs/my model" and said["size"] == 64
    assert (said["reads"], said["needs_text"], said["presence"]) == (True, True, False)
    assert said["colours"][0] == list(viz.COLOURS[0])
    assert (said["ready"], said["batch"], said["threshold"]) == (True, 1, 0.35)
    assert said["vocabulary"] == 153 and len(said["words"]) == 44
    assert (said["trained"], said["points"]) == ("", 64)
    assert {"the", "star"} < set(said["words"])


@pytest.mark.parametrize(
    ("noted", "sentence"),
    [
        ({}, ""),
        (
            {"dataset": "shapes", "config": {"model.init.sam": ""}},
            "It was trained on drawings of 6 shapes in 8 colours, and on no photographs.",
        ),
        (
            {"dataset": "shapes", "config": {"model.init.sam": "weights/sam_vit_b.pth"}},
            "It was trained on drawings of 6 shapes in 8 colours, beginning with sam_vit_b.pth.",
        ),
        (
            {"dataset": "shapes", "config": {"model.init.sam": "mini_sam"}},
            "It was trained on drawings of 6 shapes in 8 colours, and on no photographs.",
        ),
        (
            {"dataset": "folder", "config": {"model.init.model": "mini"}},
            "It was trained on folder, beginning with mini.",
        ),
        ({"dataset": "refcoco(unc)"}, "It was trained on refcoco(unc)."),
        ({"source": "/home/a/sam.pth", "format": "sam"}, "Its weights are those of sam.pth."),
        ({"source": {"sam": "a.pth", "bert": "b"}}, "Its weights are those of a.pth and b."),
    ],
)
def test_what_it_was_trained_on(noted, sentence):
    assert desk.trained_on(noted) == sentence


@pytest.mark.parametrize("name", ["mini", "mini_sam"])
def test_the_shipped_models_know_drawings(name):
    noted = Segmenter.from_pretrained(name).provenance
    assert desk.trained_on(noted).endswith("6 shapes in 8 colours, and on no photographs.")


def test_what_of_a_text_is_known(client, sam):
    """Without a picture, while it is typed."""
    said = client.post("/v1/read", json={"text": "a dog \u2603 by the star"}).json()
    assert said == {"cut": "", "unknown": ["\u2603"], "letters": ["dog", "by"]}
    failed = asking(sam).post("/v1/read", json={"text": "a"})
    assert (failed.status_code, failed.json()) == (400, {"error": "the model takes no text."})


def test_answers_are_the_segmenters(client, segmenter):
    """Bit for bit; so are the scores."""
    answers = segment(client, PROMPTS)
    for prompt, said in zip(PROMPTS, answers, strict=True):
        (expected,) = segmenter(photo(), prompt["text"], **without(prompt, "text"))
        assert 0.05 < expected.mask.mean() < 0.95  # or nothing here could fail
        np.testing.assert_array_equal(rle.decode(said["mask"]), expected.mask)
        assert said["score"] == expected.score and said["score_kind"] == "confidence"
        assert said["share"] == expected.mask.mean()
        assert (said["text"], said["cut"], said["unknown"]) == (prompt["text"], "", [])
        assert said["presence"] is said["nothing"] is None
    masks = {said["mask"]["counts"] for said in answers}
    assert len(masks) == len(PROMPTS)


def without(prompt, *keys):
    return {key: value for key, value in prompt.items() if key not in keys}


@pytest.mark.parametrize("how", ["base64", "form"])
def test_a_picture_comes_with_its_question(how, client):
    (expected,) = segment(client, PROMPTS[:1])
    question = {"prompts": PROMPTS[:1]}
    if how == "base64":
        image = base64.b64encode(encoded(photo())).decode()
        said = client.post("/v1/segment", json=question | {"image": image})
    else:
        files = {"image": ("a.png", encoded(photo()))}
        form = {"question": json.dumps(question)}
        said = client.post("/v1/segment", files=files, data=form)
    assert said.status_code == 200 and said.json()["answers"] == [expected]


def test_forms_of_a_mask(client, segmenter):
    (expected,) = segmenter(photo(), TEXT)
    rows, columns = np.nonzero(expected.mask)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    by = {form: segment(client, PROMPTS[:1], output=form)[0] for form in desk.masks.WRITTEN}
    assert all(said["box"] == box for said in by.values()) and by["box"]["mask"] is None
    png = read(base64.b64decode(by["png"]["mask"]))
    np.testing.assert_array_equal(png, expected.mask * np.uint8(255))
    rings = [np.reshape(ring, (-1, 2)) for ring in by["polygon"]["mask"]]
    assert rings and all(expected.mask[int(y), int(x)] for ring in rings for x, y in ring)
    assert next(ring.min(axis=0).tolist() for ring in rings) >= box[:2]


def test_a_threshold_of_ones_own(client, segmenter):
    (expected,) = segmenter(photo(), TEXT)
    (said,) = segment(client, PROMPTS[:1], threshold=0.9)
    np.testing.assert_array_equal(rle.decode(said["mask"]), expected.probability > 0.9)


def test_an_earlier_mask_is_gone_on_with(client, segmenter):
    (earlier,) = segment(client, PROMPTS[:1])
    (said,) = segment(client, [PROMPTS[1] | {"mask": earlier["mask"]}])
    how = dict(points=PROMPTS[1]["points"], mask=rle.decode(earlier["mask"]).astype(bool))
    (expected,) = segmenter(photo(), TEXT, **how)
    np.testing.assert_array_equal(rle.decode(said["mask"]), expected.mask)
    assert said["mask"] not in (earlier["mask"], segment(client, PROMPTS[1:2])[0]["mask"])


def test_words_that_are_not_read(client):
    long = "the \u661f of the large square near the small red circle with blue stripes"
    (said,) = segment(client, [{"text": long}])
    assert (said["cut"], said["unknown"]) == ("the small red circle with blue stripes", ["\u661f"])


def test_word_maps(client):
    asked = {"picture": opened(client)["id"], "text": TEXT, "points": [[9, 9, 1]]}
    said = client.post("/v1/words", json=asked).json()
    assert [word["text"] for word in said["words"]] == TEXT.split()
    assert said["layers"] == ["block 1", "block 2", "decoder 1"] and said["remark"] is None
    assert np.array(said["shares"]).shape == (3, 3)
    assert (np.sum(said["shares"], axis=1) <= 1).all()
    maps = np.frombuffer(base64.b64decode(said["maps"]), np.uint8).reshape(3, 3, *said["grid"])
    assert (maps.max(axis=(1, 2, 3)) == 255).all() and len(said["tops"]) == 3
    assert said["content"] == [10, 0, 44, 64] and said["canvas"] == 64
    boxed = client.post("/v1/words", json=asked | {"box": [0, 0, 30, 30]}).json()
    assert boxed["maps"] == said["maps"] and boxed["shares"] != said["shares"]


def test_a_picture_is_shown(client):
    picture = opened(client)
    assert (picture["width"], picture["height"], picture["view"]) == (70, 48, [512, 351])
    jpeg = client.get(f"/v1/pictures/{picture['id']}.jpg")
    assert jpeg.headers["Content-Type"] == "image/jpeg"
    assert read(jpeg.content).shape == (351, 512, 3)


def test_an_example_comes_with_words_that_fit_and_can_be_saved(client):
    """As the pixels that were asked about; nobody needs what was uploaded."""
    said = client.post("/v1/examples").json()
    assert len(said["texts"]) == 2 and max(said["view"]) == 512 and said["drawn"] is True
    saved = client.get(f"/v1/pictures/{said['id']}.png")
    assert saved.headers["Content-Disposition"] == 'attachment; filename="drawing.png"'
    assert read(saved.content).shape == (said["height"], said["width"], 3)
    again = client.post("/v1/pictures", content=saved.content).json()
    assert (again["drawn"], again["view"]) == (False, said["view"])
    asked = {"prompts": [{"text": said["texts"][0]}]}
    first, second = (
        client.post("/v1/segment", json=asked | {"picture": one["id"]}).json()
        for one in (said, again)
    )
    assert first == second
    refused = client.get(f"/v1/pictures/{again['id']}.png")
    assert refused.status_code == 404 and "was not drawn here" in refused.json()["error"]


def test_everything_of_a_picture(sam):
    client = asking(sam)
    image = base64.b64encode(encoded(photo())).decode()
    limits = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.5, "points_per_side": 3}
    said = client.post("/v1/everything", json={"image": image, **limits}).json()
    expected = sam.everything(photo(), **limits)
    assert said["size"] == [48, 70] and len(said["masks"]) == len(expected) > 0
    for one, found in zip(said["masks"], expected, strict=True):
        np.testing.assert_array_equal(rle.decode(one["mask"]), found["segmentation"])
        assert one["score"] == found["predicted_iou"] and [one["point"]] == found["point_coords"]
    large = base64.b64encode(encoded(photo(height=1001, width=1000))).decode()
    refused = client.post("/v1/everything", json={"image": large})
    assert "expected at most 1 megapixels here" in refused.json()["error"]


def test_everything_ends_where_nobody_waits_for_it(sam, monkeypatch):
    """After the batch of points that was asked last; the next one finds its thread free."""
    begun, gone = threading.Event(), threading.Event()
    at_points, batches = sam._engine.at_points, []

    def slow(*asked, **how):
        batches.append(asked)
        begun.set()
        assert gone.wait(60)
        return at_points(*asked, **how)

    monkeypatch.setattr(sam._engine, "at_points", slow)
    its_desk, picture = asking(sam).app.state.desk, encoded(photo())

    async def left():
        many = schema.EverythingQuestion(points_per_side=16)  # 4 batches
        task = asyncio.ensure_future(its_desk.everything(many, picture))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gone.set()
        await its_desk.everything(schema.EverythingQuestion(points_per_side=1), picture)

    asyncio.run(left())
    assert len(batches) == 2


def test_everything_needs_a_model_of_points(client):
    image = base64.b64encode(encoded(photo())).decode()
    refused = client.post("/v1/everything", json={"image": image})
    assert refused.status_code == 400 and "this model reads text" in refused.json()["error"]


def test_plain_sam_takes_points_alone(sam):
    client = asking(sam)
    said = client.get("/v1/model").json()
    assert (said["reads"], said["vocabulary"], said["words"]) == (False, 0, [])
    (said,) = segment(client, [{"points": [[9, 9]]}])
    assert said["text"] is None
    picture = opened(client)["id"]
    failed = client.post("/v1/words", json={"picture": picture, "text": "x"})
    assert failed.status_code == 400 and "reads no text" in failed.json()["error"]
    failed = client.post("/v1/segment", json={"picture": picture, "prompts": [{"text": "x"}]})
    assert failed.status_code == 400 and "plain SAM, which reads no text" in failed.json()["error"]


def test_a_model_that_may_say_nothing(tmp_path):
    folder = write_model(tmp_path / "m", injection=Injection.NONE, presence=True)
    client = asking(Segmenter.from_pretrained(folder, batch_size=1))
    assert client.get("/v1/model").json()["needs_text"] is False
    (said,) = segment(client, PROMPTS[:1])
    assert said["nothing"] == (said["presence"] < 0.5)
    asked = {"picture": opened(client)["id"], "text": TEXT}
    remark = client.post("/v1/words", json=asked).json()["remark"]
    assert remark.startswith("no text enters this model's image encoder")


def test_only_the_latest_are_kept(client):
    kept = LruCache(2, sentence="gone.")
    keys = [kept.add(value) for value in "ab"]
    assert kept[keys[0]] == "a"
    third = kept.add("c")
    with pytest.raises(Gone, match="gone."):
        kept[keys[1]]
    assert (kept[keys[0]], kept[third], len(kept)) == ("a", "c", 2)
    kept.clear()
    assert len(kept) == 0
    first = opened(client)["id"]
    for _ in range(desk.PICTURES):
        last = opened(client)["id"]
    assert client.get(f"/v1/pictures/{first}.jpg").status_code == 404
    assert client.get(f"/v1/pictures/{last}.jpg").status_code == 200


def test_a_failure_is_told_without_its_insides(client, monkeypatch, caplog):
    def fail(*arguments, **how):
        raise RuntimeError("secret")

    monkeypatch.setattr(desk, "pixels_of", fail)
    said = client.post("/v1/pictures", content=encoded(photo()))
    assert said.status_code == 500 and "Content-Security-Policy" in said.headers
    assert said.json() == {"error": "the server failed at this; its terminal says why."}
    assert "secret" in caplog.text


def test_the_pages_need_nothing_from_elsewhere(client):
    """Every file is packaged and served, and none names another server."""
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "page/*" in packaged["package-data"]["dit_jax.serve"]
    for page in ("/", "/docs"):
        names = re.findall(r'"(/(?:page|swagger)/[\w.-]+)"', client.get(page).text)
        assert len(names) >= 2
        for name in names:
            assert client.get(name).status_code == 200
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace(SVG, "")
        assert "//cdn" not in text and not re.search(r"https?://", text), file
        for name in re.findall(r'from "\./([\w.]+)"', text):
            assert (PAGE / name).is_file()


def test_which_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert server.chosen("a") == "a"
    assert server.chosen(None) == "mini"  # by its name
    assert hub.local(server.chosen(None)) == hub.SHIPPED / "mini"
    (tmp_path / server.QUICKSTART).mkdir(parents=True)
    assert server.chosen(None) == server.QUICKSTART


def test_ports(segmenter):
    make = dict(name="m", host="127.0.0.1", deadline=1.0)
    *_, first = server.make_server(segmenter, **make, port=0)
    with first:
        taken = first.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {taken}: .*in use"):
            server.make_server(segmenter, **make, port=taken)
    with pytest.raises(ValueError, match="--port is 70000; expected 1 to 65535"):
        server.make_server(segmenter, **make, port=70000)


def test_without_its_packages(segmenter, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"the server needs uvicorn: pip install 'dit_jax\[demo\]'"
    ):
        server.make_server(segmenter, name="m", host="127.0.0.1", port=0, deadline=1.0)


def test_small_pictures_are_shown_larger():
    assert sessions._viewed(np.zeros((10, 4, 3), np.uint8)).shape == (512, 205, 3)
    assert sessions._viewed(np.zeros((600, 900, 3), np.uint8)).shape == (600, 900, 3)
    assert sessions._viewed(np.zeros((1, 3000, 3), np.uint8)).shape == (1, 1280, 3)


def test_large_pictures_are_shown_smaller():
    """By halves first, which shows the same."""
    ramp = np.tile(np.linspace(0, 255, 2601).astype(np.uint8)[None, :, None], (1301, 1, 3))
    direct = cv2.resize(ramp, (1280, 640), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(sessions._viewed(ramp).astype(int), direct, atol=2)
