"""What people's annotation files say: from files to `Annotations`, before a picture is opened.

In: a REFER folder, gRefCOCO's, an own folder of JSON lines or files of COCO, YOLO or labelme. Out:
`Annotations`, or ValueError that names what is wrong and where. Read `datasets` first, the table of
all kinds: a new data set is a row there. `refer` and `grefer` stand on `coco` and `safe_pickle`;
`folder` on `folder_lines`, `folder_coco`, `folder_yolo` and `folder_labelme`, these on `fields` and
`geometry` (what a value may be) and `strict_json` (mistakes with a place). `published` has the
counts that a data set should have.
"""

from dit_jax.data.annotations import datasets, fields, geometry, strict_json
from dit_jax.data.annotations.datasets import Location
from dit_jax.data.annotations.published import PUBLISHED, Count
from dit_jax.data.annotations.strict_json import Mistake, Mistakes

__all__ = [
    "PUBLISHED",
    "Count",
    "Location",
    "Mistake",
    "Mistakes",
    "datasets",
    "fields",
    "geometry",
    "strict_json",
]
