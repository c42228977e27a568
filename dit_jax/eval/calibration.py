""" "Nothing like that here", with a promise: a presence threshold from absent expressions.

Split conformal risk control: Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk
Control", ICLR 2024. What is drawn is a picture, its loss the share of its absent expressions that
get a mask: expressions about one picture are alike, and count as one.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from dit_jax.eval.metrics import measure
from dit_jax.eval.outcomes import Outcomes
from dit_jax.eval.protocols import conventions, logit


def threshold(
    presence: Float32[np.ndarray, " n"], pictures: Int[np.ndarray, " n"], *, false_alarm: float
) -> float:
    """The smallest presence threshold t with m / (m + 1) · R(t) + 1 / (m + 1) ≤ `false_alarm`.

    R(t) is the mean over m pictures of the share of their absent expressions whose `presence`, a
    logit, is not below t. Of a picture that is exchangeable with these m, the same share is then
    `false_alarm` at most in expectation, over their draw and its own; equal logits get masks
    together or not at all. Raises ValueError where m is too small, or a logit too large for a
    threshold below 1.

    Args:
      presence: of absent expressions.
      pictures: which picture each of them is about.
    """
    _, own, counts = np.unique(pictures, return_inverse=True, return_counts=True)
    left = allowed(len(counts), false_alarm=false_alarm)
    for place in np.argsort(-presence, kind="stable"):
        left -= Fraction(1, int(counts[own[place]]))
        if left < 0:
            break
    limit = float(np.nextafter(presence[place], np.float32(np.inf)))  # that one may not
    odds = math.exp(-abs(limit))
    found = (1.0 if limit > 0 else odds) / (1.0 + odds)
    while found < 1 and (found == 0 or logit(found) < limit):  # programs compare float32 logits
        found = math.nextafter(found, 1.0)
    if found == 1:
        sure = int((presence >= presence[place]).sum())
        raise ValueError(
            f"no presence threshold below 1 keeps eval.false_alarm={false_alarm}: the model is sure"
            f" that {sure} of {len(presence)} absent expressions are there."
        )
    return found


def allowed(pictures: int, *, false_alarm: float) -> Fraction:
    """How many pictures' absent expressions may get masks; raises ValueError with too few."""
    share = Fraction(str(false_alarm))
    if share * (pictures + 1) < 1:
        raise ValueError(
            f"eval.false_alarm={false_alarm} needs at least {math.ceil(1 / share) - 1} pictures"
            f" with absent expressions to calibrate on, and there are {pictures}."
        )
    return share * (pictures + 1) - 1


def check(before: Outcomes, after: Outcomes) -> dict[str, Any]:
    """What a threshold does on another split, by outcomes of protocol `gres` without and with it.

    Of `absent` expressions `masks` get one, `share` with its 95 % `interval`; `T-acc`, and the oIoU
    over the `present` ones alone, before and after. In percent.
    """
    rules, there = conventions("gres"), after["target"] > 0
    absent, masks = int((~there).sum()), int((~there & (after["nothing"] == 0)).sum())
    both = [measure(one, rules) for one in (before, after)]
    present = [measure(Outcomes(one.table[there]), rules) for one in (before, after)]
    return {
        "absent": absent,
        "masks": masks,
        "share": 100 * masks / absent,
        "interval": [100 * end for end in interval(masks, absent)],
        "present": int(there.sum()),
        "T-acc": [scores["T-acc"] for scores in both],
        "oIoU": [scores["oIoU"] for scores in present],
    }


def interval(count: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share of which `count` of `n` were seen (Clopper and Pearson,
    Biometrika 1934)."""
    tail = (1 - level) / 2
    i = np.arange(1, n + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((n - i + 1) / i))])  # log of n over i

    def at_most(k: int, share: float) -> float:
        i = np.arange(k + 1)
        return np.exp(ways[i] + i * math.log(share) + (n - i) * math.log1p(-share)).sum()

    def around(k: int, share: float) -> tuple[float, float]:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > share else (low, middle)
        return low, high

    return around(count - 1, 1 - tail)[0], around(count, tail)[1]
