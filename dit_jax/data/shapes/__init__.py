"""The embedded data set: drawn scenes and sentences about them, without end and without files.

In: a split's name, a seed, an index. Out: a Referent. Read `dataset`, which joins the parts:
`layout` decides what lies in a scene and where, `draw` makes picture and masks, `language` finds
expressions that single out one object, `absent` some that fit none, `words` says them with
`vocab.txt`.
"""

from dit_jax.data.shapes.dataset import SMALLEST_SIZE, SPLITS, VOCAB, Scene, Shapes, scene
from dit_jax.data.shapes.layout import COLOURS, SHAPES

__all__ = ["COLOURS", "SHAPES", "SMALLEST_SIZE", "SPLITS", "VOCAB", "Scene", "Shapes", "scene"]
