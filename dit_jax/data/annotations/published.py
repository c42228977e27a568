"""How many referents and expressions the splits of the published data sets have.

A folder of other counts is another data set, or an incomplete one.
"""

from typing import NamedTuple


class Count(NamedTuple):
    """None where no source states it."""

    referents: int | None
    expressions: int | None


# The counts of RefCOCO, RefCOCO+ and RefCOCOg are those of REFER's files.
PUBLISHED: dict[str, dict[str, Count]] = {
    "refcoco(unc)": {
        "train": Count(42_404, 120_624),
        "val": Count(3_811, 10_834),
        "testA": Count(1_975, 5_657),
        "testB": Count(1_810, 5_095),
    },
    # https://www.tensorflow.org/datasets/catalog/ref_coco counts its referents only.
    "refcoco(google)": {
        "train": Count(40_000, None),
        "val": Count(5_000, None),
        "test": Count(5_000, None),
    },
    "refcoco+(unc)": {
        "train": Count(42_278, 120_191),
        "val": Count(3_805, 10_758),
        "testA": Count(1_975, 5_726),
        "testB": Count(1_798, 4_889),
    },
    "refcoco+(google)": {},  # REFER's own list does not have it, so nothing is known of its splits
    "refcocog(umd)": {
        "train": Count(42_226, 80_512),
        "val": Count(2_573, 4_896),
        "test": Count(5_023, 9_602),
    },
    "refcocog(google)": {"train": Count(44_822, 85_474), "val": Count(5_000, 9_536)},
    # The paper counts 278,232 expressions, the released file has 259,859 of them: the rest is held
    # back (https://github.com/henghuiding/gRefCOCO/issues/6). Neither says how they are divided.
    # The splits below are what people counted who used the released file: train in a study of
    # few-shot training, val and testA in https://github.com/shiinayane/visual-media-gres; for the
    # referents, and for testB, no statement was found.
    "grefcoco(unc)": {
        "train": Count(None, 209_344),
        "val": Count(None, 14_229),
        "testA": Count(None, 19_200),
        "testB": Count(None, None),
    },
}
