"""Each protocol against a slow statement of its definition: masks, counts, and real masks."""

import itertools

import cv2
import numpy as np
import pytest
import slow_protocols as slow
from PIL import Image

from dit_jax.data.pixels.transforms import content_box, letterbox
from dit_jax.eval.metrics import PRECISION, measure
from dit_jax.eval.outcomes import Outcomes, about, outcome
from dit_jax.eval.protocols import PROTOCOLS, THRESHOLD, Answer, Protocol, rows

SIZE = 32
PICTURES = {  # height, width
    "landscape": (30, 40),
    "portrait": (40, 30),
    "square, as the canvas": (32, 32),
    "one row": (1, 45),
    "one column": (45, 1),
    "one pixel": (1, 1),
    "wide": (5, 70),
    "tall": (70, 5),
    "small": (9, 11),
    "large": (97, 60),
}
BLOBS = ("smooth", "rough", "empty", "full", "one pixel of the canvas")
TRUTHS = ("rough", "empty", "full", "one pixel")
CEILINGS = {
    "dit": 98.9,
    "original": 99.99,
    "lavt": 99.7,
    "cris": 99.7,
    "lisa": 99.99,
    "gres": 99.99,
}


def logits_of(blob: str, content, rng) -> np.ndarray:
    """Logits on a canvas; the padding is foreground, so that a protocol must leave it out."""
    top, left, h, w = content
    logits = np.full((SIZE, SIZE), 5.0, np.float32)
    noise = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    inside = {
        "smooth": 20 * cv2.GaussianBlur(noise, (0, 0), 3),
        "rough": 3 * noise,
        "empty": np.full_like(noise, -5),
        "full": np.full_like(noise, 5),
        "one pixel of the canvas": np.full_like(noise, -5),
    }[blob]
    logits[top : top + h, left : left + w] = inside[:h, :w]
    if blob.startswith("one pixel"):
        logits[top + h // 2, left + w // 2] = 5
    return logits


def truth_of(kind: str, height: int, width: int, rng) -> np.ndarray:
    truth = np.full((height, width), kind == "full")
    if kind == "rough":
        truth = rng.random((height, width)) < 0.5
    if kind == "one pixel":
        truth[height // 2, width // 3] = True
    return truth


def outcome_of(protocol: Protocol, answer: Answer, *, index: int):
    pair, truth = protocol.pair(answer), answer.truth
    known = about("a dog", truth, index=index, image_id=index, target=int(truth.sum()))
    return outcome(pair.predicted, pair.truth, nothing=pair.nothing, about=known)


def check_mask(name: str, answer: Answer) -> np.ndarray:
    """Our mask equals the slow statement wherever more than rounding decides; returns it."""
    height, width = answer.truth.shape
    mask = PROTOCOLS[name].mask(answer)
    value, limit = slow.VALUES[name](answer.logits, answer.content, height, width, answer.threshold)
    assert mask.dtype == bool and mask.shape == value.shape
    # OpenCV warps with positions in float32: 3e-5 of a sample on a large canvas.
    decided = np.abs(value - limit) > (1e-4 if name == "cris" else 1e-5)
    decided |= value == limit
    np.testing.assert_array_equal(mask[decided], (value > limit)[decided])
    assert decided.mean() > 0.99
    return mask


def check_scores(name: str, answers: list[Answer]) -> None:
    """Our scores of these answers as a split equal the slow statement on the same masks."""
    protocol, found, items = PROTOCOLS[name], [], []
    for index, answer in enumerate(answers):
        found.append(outcome_of(protocol, answer, index=index))
        truth = slow.nearest(answer.truth, 480, 480) if name == "lavt" else answer.truth
        nothing = None if answer.presence is None else answer.presence < 0
        items.append((protocol.mask(answer), truth, nothing))
    check_measured(name, found, items)


def check_measured(name: str, found: list, items: list) -> dict:
    """Outcomes score as the slow statement says of the same masks; returns the scores."""
    scores, expected = measure(Outcomes.of(found), PROTOCOLS[name].conventions), slow.SCORES[name]
    for metric, value in expected(items).items():
        if metric in ("N-acc", "T-acc") and not any(t.sum() == 0 for _, t, _ in items):
            assert (scores[metric], value) == (None, 0)  # docs/protocols.md lists this
        else:
            assert scores[metric] == (None if value is None else pytest.approx(value, abs=1e-9))
    return scores


def test_every_protocol_has_a_slow_statement():
    assert slow.VALUES.keys() == slow.SCORES.keys() == PROTOCOLS.keys() == CEILINGS.keys()


@pytest.mark.parametrize("threshold", [THRESHOLD, 0.6])
@pytest.mark.parametrize("blob", BLOBS)
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mask_equals_its_definition(protocol, picture, blob, threshold):
    height, width = PICTURES[picture]
    rng = np.random.default_rng([height, width, BLOBS.index(blob)])
    content = content_box(height, width, SIZE)
    truth = rng.random((height, width)) < 0.5
    answer = Answer(logits_of(blob, content, rng), content, truth, threshold=threshold)
    mask = check_mask(protocol, answer)
    # CRIS looks beyond the picture, where the canvas is foreground here.
    if blob in ("empty", "full") and protocol != "cris":
        assert (mask == (blob == "full")).all()


@pytest.mark.parametrize("says", ["mask only", "presence"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_equal_their_definition(protocol, says):
    """Every blob on every truth in every picture, as one split."""
    rng = np.random.default_rng(1)
    answers = []
    for height, width in PICTURES.values():
        content = content_box(height, width, SIZE)
        for blob, kind in itertools.product(BLOBS, TRUTHS):
            presence = None if says == "mask only" else float(rng.normal())
            truth = truth_of(kind, height, width, rng)
            answers.append(Answer(logits_of(blob, content, rng), content, truth, presence))
    if protocol == "lavt":
        answers = answers[::7]  # at 230,400 pixels each, a part of them will do
    check_scores(protocol, answers)


# P@0.5 … 0.9 of five pairs whose IoUs are exactly that, by the pixels of their unions. With >=, and
# by DIT's 1e-10, a pair is above its own X, until rounding takes that away; CRIS's 0.7 and 0.9 are
# the float32 below, which its 1e-6 in the union hides where that is small.
TIES = {
    "original": {union: [80, 60, 40, 20, 0] for union in (10, 300, 100_000, 300_000)},
    "lavt": {union: [100, 80, 60, 40, 20] for union in (10, 300, 100_000, 300_000)},
    "gres": {union: [100, 80, 60, 40, 20] for union in (10, 300, 100_000, 300_000)},
    "cris": {10: [80, 60, 40, 20, 0]}
    | {union: [80, 60, 60, 20, 20] for union in (100, 300, 100_000, 300_000)},
    "dit": {union: [100, 80, 60, 40, 20] for union in (10, 300)}
    | {100_000: [100, 80, 60, 20, 0], 300_000: [100, 60, 40, 20, 0]},
}


@pytest.mark.parametrize("protocol", TIES)
def test_an_iou_of_exactly_x_counts_as_its_code_counts(protocol):
    for union, expected in TIES[protocol].items():
        truth, items, found = np.ones((10, union // 10), bool), [], []
        for tenths in range(5, 10):
            predicted = np.broadcast_to((np.arange(10) < tenths)[:, None], truth.shape)
            known = about("dog", truth, index=tenths, image_id=0, target=union)
            items.append((predicted, truth, False))
            found.append(outcome(predicted, truth, nothing=False, about=known))
        scores = check_measured(protocol, found, items)
        assert [scores[metric] for metric in PRECISION] == expected, union


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("original", {"oIoU": 100, "mIoU": 100, "gIoU": 100, "P@0.9": 100}),
        ("dit", {"oIoU": None, "mIoU": 100, "P@0.9": 100}),
        ("lavt", {"oIoU": None, "mIoU": 0, "P@0.5": 0}),
        ("cris", {"mIoU": 0, "P@0.5": 0}),
        ("lisa", {"oIoU": 0, "gIoU": 100 * 3 / 3.00001}),
        ("gres", {"oIoU": None, "gIoU": 100, "P@0.7": None, "N-acc": 100, "T-acc": None}),
    ],
)
def test_a_split_without_any_pixel_scores_as_its_code_scores_it(protocol, expected):
    """DIT and LAVT have NaN there, and ReLA an exception: no value here."""
    none = np.zeros((4, 5), bool)
    known = [about("dog", none, index=i, image_id=i, target=0) for i in range(3)]
    found = [outcome(none, none, nothing=True, about=one) for one in known]
    scores = check_measured(protocol, found, [(none, none, True)] * 3)
    for metric, value in expected.items():
        assert scores[metric] == (None if value is None else pytest.approx(value, abs=1e-12))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threshold_is_a_probability_where_it_is_open(protocol):
    logits = np.linspace(-4, 4, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    truth = np.ones((SIZE, SIZE), bool)
    for threshold in (0.2, 0.5, 0.8):
        answer = Answer(logits, (0, 0, SIZE, SIZE), truth, threshold=threshold)
        level = threshold if PROTOCOLS[protocol].open_threshold else 0.5
        if protocol != "lavt":
            expected = 1 / (1 + np.exp(-logits)) > level
            np.testing.assert_array_equal(PROTOCOLS[protocol].mask(answer), expected)
        else:
            assert PROTOCOLS[protocol].mask(answer).mean() == pytest.approx(0.5, abs=0.02)


def test_dit_dilates_what_original_keeps():
    logits = np.full((SIZE, SIZE), -5, np.float32)
    logits[12:20, 12:20] = 5
    truth = np.zeros((4 * SIZE, 4 * SIZE), bool)
    truth[48:80, 48:80] = True
    answer = Answer(logits, (0, 0, SIZE, SIZE), truth)
    areas = {name: PROTOCOLS[name].mask(answer).sum() for name in ("dit", "original")}
    # Beyond each edge, two subpixels still lie between an inner sample and an outer one.
    assert areas["dit"] == (32 + 4) ** 2
    assert areas["original"] == 32**2 - 4  # the corners are rounded


def square(pixels: int) -> Answer:
    """A picture of the canvas's size whose first `pixels` are foreground."""
    logits = np.full(SIZE * SIZE, -5, np.float32)
    logits[:pixels] = 5
    logits = logits.reshape(SIZE, SIZE)
    return Answer(logits, (0, 0, SIZE, SIZE), np.ones((SIZE, SIZE), bool))


def test_gres_takes_fewer_than_50_pixels_for_nothing():
    gres = PROTOCOLS["gres"]
    few, enough = gres.pair(square(49)), gres.pair(square(50))
    assert few.nothing and not few.predicted.any()
    assert not enough.nothing and enough.predicted.sum() == 50
    assert not PROTOCOLS["lisa"].pair(square(1)).nothing
    assert PROTOCOLS["lisa"].pair(square(0)).nothing


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_gres_believes_the_models_own_word(threshold):
    gres, base = PROTOCOLS["gres"], square(49)
    for probability in (0.1, 0.29, 0.31, 0.49, 0.51, 0.89, 0.91):
        presence = float(np.log(probability / (1 - probability)))
        given = (base.logits, base.content, base.truth, presence)
        pair = gres.pair(Answer(*given, presence_threshold=threshold))
        assert pair.nothing == (probability < threshold)
        assert pair.predicted.sum() == 49  # its mask stays in the union
        assert not PROTOCOLS["lisa"].pair(Answer(*given)).nothing  # which has no such word


def test_the_truth_of_lavt_is_resized_as_pil_does():
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 640), (333, 1), (480, 640), (640, 480), (427, 640), (612, 612), (37, 1000)]
    sizes += [tuple(size) for size in rng.integers(1, 900, size=(40, 2)).tolist()]
    for height, width in sizes:
        truth = rng.random((height, width)) < 0.5
        pair = PROTOCOLS["lavt"].compare(np.zeros((480, 480), bool), truth, None)
        picture = Image.fromarray(truth.astype(np.uint8)).resize(
            (480, 480), Image.Resampling.NEAREST
        )
        np.testing.assert_array_equal(pair.truth, np.asarray(picture) > 0)
    np.testing.assert_array_equal(slow.nearest(truth, 480, 480), pair.truth)


@pytest.mark.parametrize("picture", PICTURES)
def test_opencv_resizes_as_pytorch_does(picture):
    from peers import torch

    height, width = PICTURES[picture]
    h, w = content_box(height, width, 512)[2:]
    x = np.random.default_rng(0).uniform(-1, 1, size=(h, w)).astype(np.float32)
    ours = cv2.resize(x, (10 * width, 10 * height), interpolation=cv2.INTER_LINEAR)
    back = cv2.resize(x, (width, height), interpolation=cv2.INTER_LINEAR)
    for result in (ours, back):
        # In float64, because PyTorch computes the positions of samples in the tensor's own type.
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(x).double()[None, None],
            size=result.shape,
            mode="bilinear",
            align_corners=False,
        )[0, 0].numpy()
        # OpenCV computes them in float32: near sample 512, one is off by up to 3e-5 of a sample.
        np.testing.assert_allclose(result, theirs, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def real_masks(shared):
    """The 105 masks of mini_refcoco, by annotation."""
    paths = sorted((shared / "data" / "mini_refcoco" / "masks").glob("*.png"))
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in paths}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_real_masks_score_as_defined(real_masks, protocol):
    """Truths moved and roughened as logits, on six photographs; and each answer on no target."""
    rng = np.random.default_rng(0)
    answers = []
    for mask in list(real_masks.values())[::20]:
        soft, content = letterbox(mask.astype(np.uint8) * 255, 128)
        logits = np.roll(soft / 32.0 - 4, 3, axis=1) + rng.normal(size=soft.shape)
        for truth in (mask, np.zeros_like(mask)):
            presence = float(rng.normal())
            answers.append(Answer(logits.astype(np.float32), content, truth, presence))
            check_mask(protocol, answers[-1])
    check_scores(protocol, answers)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ceiling_of_true_masks_fed_back_as_logits(real_masks, protocol):
    """What a perfect model at 512 pixels would score; docs/protocols.md quotes it."""
    found = []
    for index, mask in enumerate(real_masks.values()):
        soft, content = letterbox(mask.astype(np.uint8) * 255, 512)
        answer = Answer(soft / np.float32(16) - 8, content, mask)
        found.append(outcome_of(PROTOCOLS[protocol], answer, index=index))
    scores = measure(Outcomes.of(found), PROTOCOLS[protocol].conventions)
    assert scores["n"] == 105
    assert scores["oIoU"] == pytest.approx(CEILINGS[protocol], abs=0.05)


def test_unknown_protocol_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"'orignal' \(did you mean 'original'\?\).*dit, original"):
        rows(["dit", "orignal"])
    with pytest.raises(ValueError, match="no protocol is named"):
        rows([])


@pytest.mark.parametrize("threshold", [0.0, 1.0, 35.0, -0.35])
def test_thresholds_must_be_probabilities(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        rows(["dit"], threshold=threshold)
    with pytest.raises(ValueError, match="between 0 and 1"):
        rows(["gres"], presence_threshold=threshold)
