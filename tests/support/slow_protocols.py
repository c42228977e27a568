"""Each protocol stated once more, slowly: masks sample by sample in float64, counts one by one.

Written from the papers' evaluation code and docs/protocols.md, without a look at the package.
"""

import math
from fractions import Fraction

import numpy as np

XS = (0.5, 0.6, 0.7, 0.8, 0.9)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def weights(out, n, *, start, step, kernel):
    """Row i weighs the n input samples for output i, which lies at start + i * step."""
    matrix = np.zeros((out, n))
    for i in range(out):
        at = start + i * step
        for j in range(math.floor(at) - 3, math.floor(at) + 5):
            if 0 <= j < n:
                matrix[i, j] += kernel(at - j)
    return matrix


def linear(d):
    return max(0.0, 1 - abs(d))


def cubic(d, a=-0.75):
    d = abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def bilinear(picture, height, width):
    """Half-pixel centres; beyond the first and last centre, the border goes on."""
    sides = []
    for out, n in ((height, picture.shape[0]), (width, picture.shape[1])):
        matrix = np.zeros((out, n))
        for i in range(out):
            at = min(max((i + 0.5) * n / out - 0.5, 0.0), n - 1.0)
            for j in range(n):
                matrix[i, j] = linear(at - j)
        sides.append(matrix)
    return sides[0] @ picture.astype(np.float64) @ sides[1].T


def nearest(picture, height, width):
    """As PIL: the position of a centre is added up in double precision."""

    def places(out, n):
        step = n / out
        at, found = step / 2, []
        for _ in range(out):
            found.append(min(math.floor(at), n - 1))
            at += step
        return found

    rows, columns = places(height, picture.shape[0]), places(width, picture.shape[1])
    return np.array([[picture[y, x] for x in columns] for y in rows])


def crop(canvas, content):
    top, left, h, w = content
    return canvas[top : top + h, left : left + w]


# (logits, content, height, width, threshold) → values and what they must exceed


def dit(logits, content, height, width, threshold):
    binary = sigmoid(logits) > threshold
    return bilinear(crop(binary, content), height, width), 0.0


def original(logits, content, height, width, threshold):
    return sigmoid(bilinear(crop(logits, content), height, width)), threshold


def lavt(logits, content, height, width, threshold):
    return bilinear(crop(logits, content), 480, 480), 0.0


def cris(logits, content, height, width, threshold):
    top, left, h, w = content
    size = logits.shape[0]
    rows = weights(height, size, start=top + h / height / 2 - 0.5, step=h / height, kernel=cubic)
    columns = weights(width, size, start=left + w / width / 2 - 0.5, step=w / width, kernel=cubic)
    return rows @ sigmoid(logits) @ columns.T, threshold


def lisa(logits, content, height, width, threshold):
    return bilinear(crop(logits, content), height, width), 0.0


VALUES = {"dit": dit, "original": original, "lavt": lavt, "cris": cris, "lisa": lisa, "gres": lisa}


def areas(predicted, truth):
    both, any_of_them = np.logical_and(predicted, truth), np.logical_or(predicted, truth)
    return int(np.sum(both)), int(np.sum(any_of_them))


def means(ious, above, n, *, xs=XS):
    """`xs` are what a code compares with where it means XS."""
    return {"mIoU": 100 * sum(ious) / n} | {
        f"P@{name}": 100 * sum(above(iou, x) for iou in ious) / n
        for name, x in zip(XS, xs, strict=True)
    }


def overall(found, *, empty):
    """ΣI/ΣU; `empty` where no pixel is in any union, None where the code has NaN or fails there."""
    union = sum(u for _, u in found)
    return {"oIoU": 100 * sum(i for i, _ in found) / union if union else empty}


def score_dit(items):
    """utils/utils.py of the released code: 1e-10 on both areas, > x of np.arange."""
    found = [areas(p, t) for p, t, _ in items]
    ious = [(i + 1e-10) / (u + 1e-10) for i, u in found]
    xs = np.arange(0.5, 1, 0.05).tolist()[::2]
    return overall(found, empty=None) | means(ious, lambda iou, x: iou > x, len(items), xs=xs)


def score_original(items):
    """As it is written: an IoU of exactly x is not above."""
    found = [areas(p, t) for p, t, _ in items]
    ious = [Fraction(i, u) if u else Fraction(1) for i, u in found]
    xs = [Fraction(str(x)) for x in XS]
    scores = means(ious, lambda iou, x: iou > x, len(items), xs=xs)
    return overall(found, empty=100) | {name: float(value) for name, value in scores.items()}


def score_lavt(items):
    """test.py: 0 for an empty union, >= x."""
    found = [areas(p, t) for p, t, _ in items]
    ious = [i / u if u else 0.0 for i, u in found]
    return overall(found, empty=None) | means(ious, lambda iou, x: iou >= x, len(items))


def score_cris(items):
    """engine.py: 1e-6 on the union, > x of torch.arange, which is float32; no overall IoU."""
    ious = [i / (u + 1e-6) for i, u in (areas(p, t) for p, t, _ in items)]
    xs = [float(np.float32(x)) for x in XS]
    return means(ious, lambda iou, x: iou > x, len(items), xs=xs)


def score_lisa(items):
    """EVF-SAM's eval.py and utils.py: cIoU and gIoU, where an empty union counts 1.

    It adds up in float32, which is left out here.
    """
    found = [areas(p, t) for p, t, _ in items]
    ious = [i / (u + 1e-10) + (u == 0) for i, u in found]
    return overall(found, empty=0) | {"gIoU": 100 * sum(ious) / (len(items) + 1e-5)}


def score_gres(items):
    """ReLA's evaluator. A model without an answer of its own for "nothing": masks of fewer than 50
    pixels are cleared and mean it."""
    total_i = total_u = total_iou = 0
    tp = tn = fp = fn = 0
    above = dict.fromkeys(XS, 0)
    for predicted, truth, says_nothing in items:
        if says_nothing is None:
            says_nothing = int(predicted.sum()) < 50
            if says_nothing:
                predicted = np.zeros_like(predicted)
        i, u = areas(predicted, truth)
        if not truth.any():
            if says_nothing:
                tp += 1
                total_iou += 1
            else:
                fn += 1
                total_u += u
            continue
        if says_nothing:
            fp += 1
            i = 0
        else:
            tn += 1
        iou = i / u
        total_i, total_u, total_iou = total_i + i, total_u + u, total_iou + iou
        for x in XS:
            above[x] += iou >= x
    targets = tn + fp
    scores = {"oIoU": 100 * total_i / total_u if total_u else None}  # None: it divides by 0
    scores["gIoU"] = 100 * total_iou / len(items)
    scores |= {f"P@{x}": 100 * n / targets if targets else None for x, n in above.items()}
    if not tp + fn:
        return scores | {"N-acc": 0, "T-acc": 0}
    return scores | {
        "N-acc": 100 * tp / (tp + fn),
        "T-acc": 100 * tn / targets if targets else None,
    }


SCORES = {
    "dit": score_dit,
    "original": score_original,
    "lavt": score_lavt,
    "cris": score_cris,
    "lisa": score_lisa,
    "gres": score_gres,
}
