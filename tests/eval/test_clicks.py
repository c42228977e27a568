"""Scores of points and boxes, with models whose answers are known."""

import dataclasses

import numpy as np
import pytest

from dit_jax.data import shapes
from dit_jax.data.pipeline import eval_batches
from dit_jax.data.tokenizer import NoWords
from dit_jax.eval import clicks
from dit_jax.eval.protocols import CLICKS
from dit_jax.predict.picture import SAM

SIZE = 64


def test_clicks_stand_in_the_middle_of_the_largest_error():
    truth = np.zeros((20, 30), bool)
    truth[4:13, 5:14] = True  # its middle is (9, 8)
    blank = np.zeros_like(truth)
    assert clicks.middle_of_error(truth, blank, blank) == (9, 8, True)
    # Missing: three columns. Too much: a square of five.
    answer = truth.copy()
    answer[:, 5:8] = False
    answer[14:19, 20:25] = True
    assert clicks.middle_of_error(truth, answer, blank) == (22, 16, False)
    clicked = blank.copy()
    clicked[16, 22] = True
    x, y, positive = clicks.middle_of_error(truth, answer, clicked)
    assert (x, y) != (22, 16) and (answer & ~truth)[y, x] and not positive
    # The border of the picture is a border: a full picture is deepest in its middle.
    full = np.ones((9, 9), bool)
    assert clicks.middle_of_error(full, full & False, full & False) == (4, 4, True)
    assert clicks.middle_of_error(truth, truth, blank) == (9, 8, True)  # nothing is wrong


@pytest.mark.parametrize("clicked", ["the wrong pixel", "the object"])
def test_where_all_that_is_wrong_was_clicked_the_object_is_clicked(clicked):
    """Never a corner that nobody means, as the deepest point of nothing at all."""
    truth = np.zeros((9, 9), bool)
    truth[3:6, 3:6] = True
    answer = truth.copy()
    answer[5, 5] = False
    known = ~answer & truth if clicked == "the wrong pixel" else truth
    assert clicks.middle_of_error(truth, answer, known) == (4, 4, True)


def test_points_are_asked_of_the_pictures_that_a_segmenter_shows():
    source = shapes.Shapes("val", size=200, length=4)
    how = dict(size=SIZE, batch_size=4, objects=True, corner=True)
    (batch,) = eval_batches(source, NoWords(), **how)
    for image, content, referent in zip(batch["image"], batch["content"], source, strict=True):
        shown = SAM.open(referent.image, size=SIZE, name="x")
        np.testing.assert_array_equal(image, shown.canvas)
        assert tuple(content) == shown.content


class Source(shapes.Shapes):
    """Drawn pictures."""


def source(length=6, **more):
    return Source("val", size=SIZE, length=length, **more)


@dataclasses.dataclass
class Knowing:
    """Answers a disk of radius 4 around positive clicks, without disks around negative ones; to a
    box, the box. The second of three answers is everything, and it likes the third best."""

    asked: list = dataclasses.field(default_factory=list)

    def pointable(self, read=None) -> clicks.Pointable:
        return clicks.Pointable(lambda batch: batch, self.ask, read, 0.0)

    def ask(self, batch, prompts, before, several):
        self.asked.append((prompts.given.sum(axis=1).tolist(), before, several))
        y, x = np.mgrid[:SIZE, :SIZE] + 0.5
        logits = -np.ones((len(prompts.points), SIZE, SIZE), np.float32)
        for row in range(len(logits)):
            x0, y0, x1, y1 = prompts.boxes[row]
            if prompts.boxed[row]:
                logits[row][(x > x0) & (x < x1) & (y > y0) & (y < y1)] = 1
            points = zip(prompts.points[row], prompts.labels[row], prompts.given[row], strict=True)
            for point, label, given in points:
                near = (x - 0.5 - point[0]) ** 2 + (y - 0.5 - point[1]) ** 2 < 16
                logits[row][near & given] = 1 if label else -1
        if several:
            best = np.ones_like(logits)
            logits = np.stack([logits, best, -best], axis=1)
        return clicks.Reply(logits, np.full(len(logits), 2), f"after {len(self.asked)}")


def evaluate(model, data, names=tuple(CLICKS), **about):
    how = dict(size=SIZE, batch_size=4, names=names, progress=False) | about
    return clicks.evaluate(model.pointable(), data, NoWords(), **how)


def test_scores_follow_the_answers():
    data, model = source(), Knowing()
    result = evaluate(model, data, keep=2)
    assert {name: row["n"] for name, row in result.scores.items()} == dict.fromkeys(CLICKS, 6)
    assert result.scores["click1"]["mIoU"] == 0  # it chose the empty one of three
    truths = [data.truth(index).mask for index in range(6)]
    everything = [100 * mask.mean() for mask in truths]
    # On this canvas every picture has padding; the oracle takes the disk or the whole picture.
    oracle = result.scores["click1_oracle"]["mIoU"]
    assert oracle >= np.mean(everything) and oracle > 0
    boxes = []
    for mask in truths:
        ys, xs = np.nonzero(mask)
        area = (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
        boxes.append(100 * mask.sum() / area)
    assert result.scores["box"]["mIoU"] == pytest.approx(np.mean(boxes), abs=1.5)
    assert result.scores["click5"]["mIoU"] > result.scores["click3"]["mIoU"] > 0
    assert len(result.samples) == 2 and "5 clicks" in result.samples[0].expression


def test_each_answer_goes_along_with_the_next_click():
    model = Knowing()
    evaluate(model, source(length=4))
    counts, before, several = zip(*model.asked, strict=True)
    assert counts == tuple([n] * 4 for n in (0, 1, 2, 3, 4, 5))  # the box first
    assert before == (None, None, "after 2", "after 3", "after 4", "after 5")
    assert several == (False, True, False, False, False, False)


def test_what_fits_nothing_is_left_out_and_limits_count():
    data = source(length=20, absent=0.5)
    there = sum(bool(data.truth(index).mask.any()) for index in range(20))
    result = evaluate(Knowing(), data, names=("click1",))
    assert 0 < there < 20 and result.scores["click1"]["n"] == there
    some = evaluate(Knowing(), source(), names=("click1",), limit=3)
    assert some.scores["click1"]["n"] == 3 and some.scores["click1"]["remarks"]["limit"] == 3


def test_clicks_after_a_text():
    """The text's answer is what the first click corrects; every expression counts."""
    model, data = Knowing(), source(length=2)

    def read(batch):
        return clicks.Reply(np.ones((4, SIZE, SIZE), np.float32), np.zeros(4), "text's")

    how = dict(size=SIZE, batch_size=4, names=("click1",), progress=False)
    result = clicks.evaluate(model.pointable(read), data, NoWords(), **how)
    assert result.scores["click1"]["n"] == 4 == int(data.expression_counts().sum())
    assert model.asked == [([1] * 4, "text's", False)]
