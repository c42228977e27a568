"""All masks of a picture, whatever is in it: a grid of points, and what is left of their answers.

The method and its parameters' names are those of Meta's automatic mask generator (Kirillov et al.
2023, App. B): each point of a grid is answered three times; masks stay that the model rates well,
that hardly change with their threshold, that do not end where a crop ends, and that no better mask
covers the box of.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from dit_jax.data.pixels import inside, pictures, run_lengths, stretch
from dit_jax.eval.prediction_files import encoded
from dit_jax.predict.picture import Picture

EDGE = 20  # pixels within which a box ends where its crop ends
Corners = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the picture
Answers = Callable[  # to points (x, y): three masks' logits each, on a small canvas, and their IoU
    [Picture, Float[np.ndarray, "n 2"]],
    tuple[Float32[np.ndarray, "n 3 h w"], Float32[np.ndarray, "n 3"]],
]


class Found(TypedDict):
    """One mask, under the names of Meta's generator; boxes are x, y, width, height in pixels."""

    segmentation: Bool[np.ndarray, "H W"]
    area: int
    bbox: list[float]
    predicted_iou: float
    point_coords: list[list[float]]  # [[x, y]], the point that was asked
    stability_score: float
    crop_box: list[float]


@dataclass(frozen=True)
class Everything:
    """What to ask and what to keep; the defaults are Meta's, for SAM with ViT-H.

    Raises ValueError for numbers that mean nothing.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0  # of the logit
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0  # smaller holes are filled, smaller pieces left out

    def __post_init__(self):
        whole = {field.name for field in fields(self) if field.type is int}
        least = dict.fromkeys(whole, 1) | {"crop_n_layers": 0, "min_mask_region_area": 0}
        for name, value in vars(self).items():
            kinds = (int,) if name in whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
                expected = "a whole number" if name in whole else "a number"
                raise ValueError(f"{name} is {value!r}; expected {expected}.")
            if value < least.get(name, 0):
                raise ValueError(f"{name} is {value}; expected {least.get(name, 0)} or more.")
        if self.crop_overlap_ratio >= 1:
            raise ValueError(f"crop_overlap_ratio is {self.crop_overlap_ratio}; expected below 1.")

    def __call__(
        self,
        pixels: pictures.Rgb,
        opened: Callable[[pictures.Rgb], Picture],
        answers: Answers,
        *,
        middle: float,
    ) -> list[Found]:
        """Masks of one picture, the best-rated first (of crops: those of the smallest first).

        Args:
          opened: puts a picture, or a crop, onto the model's canvas.
          middle: the logit above which a pixel is in the mask.
        """
        height, width = pixels.shape[:2]
        whole = (0, 0, width, height)
        crops = self.crops(width=width, height=height)
        found = []
        for crop, layer in crops:
            side = self.points_per_side // self.crop_n_points_downscale_factor**layer
            if side:
                x0, y0, x1, y1 = crop
                picture = opened(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
                stable = self._stable(picture, grid(side), answers, middle=middle, crop=crop)
                found += self._best(one for one in stable if not _cut(one.box, crop, whole))
        if len(crops) > 1:
            corners = np.array([one.crop for one in found], np.float32).reshape(-1, 4)
            scores = 1 / np.prod(corners[:, 2:] - corners[:, :2], axis=1)
            found = [found[i] for i in kept(_boxes(found), scores, limit=self.crop_nms_thresh)]
        if self.min_mask_region_area:
            found = self._without_specks(found, height=height, width=width)
        return [one.told(height=height, width=width) for one in found]

    def crops(self, *, width: int, height: int) -> list[tuple[Corners, int]]:
        """Parts of the picture with their layers; layer n has 2^n crops along a side."""
        crops = [((0, 0, width, height), 0)]
        for layer in range(1, self.crop_n_layers + 1):
            count = 2**layer
            overlap = int(self.crop_overlap_ratio * min(width, height) * 2 / count)
            wide, high = (
                math.ceil((overlap * (count - 1) + length) / count) for length in (width, height)
            )
            for i, j in itertools.product(range(count), repeat=2):
                x, y = (wide - overlap) * i, (high - overlap) * j
                crops.append(((x, y, min(x + wide, width), min(y + high, height)), layer))
        return crops

    def _stable(
        self,
        picture: Picture,
        places: Float[np.ndarray, "n 2"],
        answers: Answers,
        *,
        middle: float,
        crop: Corners,
    ) -> Iterator["_Mask"]:
        """The answers to points of a picture that are worth keeping; `places` are in [0, 1]."""
        points, size = places * (picture.width, picture.height), picture.canvas.shape[0]
        for start in range(0, len(points), self.points_per_batch):
            asked = points[start : start + self.points_per_batch]
            for point, masks, ious in zip(asked, *answers(picture, asked), strict=True):
                for logits, iou in zip(masks, ious, strict=True):
                    if self.pred_iou_thresh > 0 and not iou > self.pred_iou_thresh:
                        continue
                    canvas = inside(stretch(logits, height=size, width=size), picture.content)
                    full = stretch(canvas, height=picture.height, width=picture.width)
                    stable = stability(full, middle, offset=self.stability_score_offset)
                    if not self.stability_score_thresh > 0 or stable >= self.stability_score_thresh:
                        at = float(point[0]) + crop[0], float(point[1]) + crop[1]
                        about = dict(iou=float(iou), stability=stable, point=at, crop=crop)
                        yield _Mask.of(full > middle, at=crop[:2], **about)

    def _best(self, found: Iterable["_Mask"]) -> list["_Mask"]:
        """Masks of a crop without those of which there is a better one."""
        masks = list(found)
        scores = np.array([one.iou for one in masks], np.float32)
        return [masks[i] for i in kept(_boxes(masks), scores, limit=self.box_nms_thresh)]

    def _without_specks(
        self, found: Sequence["_Mask"], *, height: int, width: int
    ) -> list["_Mask"]:
        """Without small holes and pieces; of two masks that are now alike, the unchanged stays."""
        changed = []
        for one in found:
            mask = one.mask(height=height, width=width)
            mask, filled = without_small(mask, self.min_mask_region_area, holes=True)
            mask, cut = without_small(mask, self.min_mask_region_area, holes=False)
            same = not (filled or cut)
            about = dict(iou=one.iou, stability=one.stability, point=one.point, crop=one.crop)
            changed.append((one if same else _Mask.of(mask, **about), float(same)))
        masks = [one for one, _ in changed]
        scores = np.array([same for _, same in changed], np.float32)
        limit = max(self.box_nms_thresh, self.crop_nms_thresh)
        return [masks[i] for i in kept(_boxes(masks), scores, limit=limit)]


@dataclass(frozen=True, eq=False)
class _Mask:
    """One mask, as run lengths: thousands may wait until the better ones are known."""

    runs: dict[str, Any]  # of the mask, whose upper left pixel is `at` (x, y) in the picture
    at: tuple[int, int]
    box: Corners  # the outermost pixels' coordinates; zeros where there is no pixel
    iou: float
    stability: float
    point: tuple[float, float]
    crop: Corners

    @staticmethod
    def of(mask: Bool[np.ndarray, "h w"], *, at: tuple[int, int] = (0, 0), **about: Any) -> "_Mask":
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box = (0, 0, 0, 0)
        if len(rows):
            x, y = at
            box = (x + columns[0], y + rows[0], x + columns[-1], y + rows[-1])
        return _Mask(encoded(mask), at, tuple(map(int, box)), **about)

    def mask(self, *, height: int, width: int) -> Bool[np.ndarray, "H W"]:
        """In the whole picture."""
        (x, y), (h, w) = self.at, self.runs["size"]
        mask = np.zeros((height, width), bool)
        mask[y : y + h, x : x + w] = run_lengths.decode(
            self.runs["counts"].encode(), height=h, width=w
        )
        return mask

    def told(self, *, height: int, width: int) -> Found:
        mask = self.mask(height=height, width=width)
        return Found(
            segmentation=mask,
            area=int(mask.sum()),
            bbox=_xywh(self.box),
            predicted_iou=self.iou,
            point_coords=[[float(x) for x in self.point]],
            stability_score=self.stability,
            crop_box=_xywh(self.crop),
        )


def grid(side: int) -> Float[np.ndarray, "n 2"]:
    """(x, y) of side × side points, evenly over [0, 1], row by row."""
    places = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(places, places)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def stability(logits: Float32[np.ndarray, "H W"], middle: float, *, offset: float) -> float:
    """IoU of the masks at a threshold above and one below; nan where both are empty."""
    inner, outer = (np.count_nonzero(logits > middle + d) for d in (offset, -offset))
    return inner / outer if outer else math.nan


def kept(
    boxes: Int[np.ndarray, "n 4"], scores: Float32[np.ndarray, " n"], *, limit: float
) -> list[int]:
    """Which boxes stay where one that overlaps with a better one by more than `limit` goes; the
    best first, the first of equals first."""
    order = np.argsort(-scores, kind="stable")
    corners = boxes.astype(np.float32)
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    stay = []
    while len(order):
        first, order = order[0], order[1:]
        stay.append(int(first))
        least = np.maximum(corners[first, :2], corners[order, :2])
        most = np.minimum(corners[first, 2:], corners[order, 2:])
        common = np.prod(np.maximum(most - least, 0), axis=1)
        union = areas[first] + areas[order] - common
        order = order[~(common > limit * union)]
    return stay


def without_small(
    mask: Bool[np.ndarray, "H W"], area: int, *, holes: bool
) -> tuple[Bool[np.ndarray, "H W"], bool]:
    """The mask without holes, or pieces, of fewer pixels, and whether it changed; where every piece
    is small, the largest stays."""
    looked = (mask ^ holes).astype(np.uint8)
    count, regions, about, _ = cv2.connectedComponentsWithStats(looked, connectivity=8)
    sizes = about[1:, cv2.CC_STAT_AREA]
    small = sizes < area
    if not small.any():
        return mask, False
    if holes:
        return mask | np.isin(regions, 1 + np.flatnonzero(small)), True
    large = ~small if not small.all() else np.arange(count - 1) == sizes.argmax()
    return np.isin(regions, 1 + np.flatnonzero(large)), True


def _boxes(found: Sequence[_Mask]) -> Int[np.ndarray, "n 4"]:
    return np.array([one.box for one in found], np.int64).reshape(-1, 4)


def _cut(box: Corners, crop: Corners, whole: Corners) -> bool:
    """Whether a box ends where its crop does, and not the picture."""
    return any(abs(a - b) <= EDGE < abs(a - c) for a, b, c in zip(box, crop, whole, strict=True))


def _xywh(box: Corners) -> list[float]:
    x0, y0, x1, y1 = box
    return [float(n) for n in (x0, y0, x1 - x0, y1 - y0)]
