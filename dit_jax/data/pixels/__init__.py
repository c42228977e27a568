"""Pictures and masks: as they lie on disk, as arrays, and on a square canvas.

In: files, members of a zip file, a user's arrays; polygons, mask files, run lengths. Out: RGB
pixels and one mask of an entry, at the picture's own size, or moved onto a canvas and augmented.
Read `pictures` and `decode`, then `masks` with `mask_pictures` and `run_lengths`, then
`transforms`, and `stored` for what records hold. `stores` finds bytes and `near_names` what is
misspelled, `picture_size` reads headers only, `frames` tells which way up annotations were drawn.
"""

from dit_jax.data.pixels import pictures, run_lengths
from dit_jax.data.pixels.decode import decode_image, depth
from dit_jax.data.pixels.frames import Frame, far_ends, frame
from dit_jax.data.pixels.masks import (
    MARGIN,
    broken_parts,
    drawn,
    entry_mask,
    in_pixels,
    looks_like_corners,
    read_entry,
)
from dit_jax.data.pixels.near_names import near
from dit_jax.data.pixels.picture_size import (
    LARGE,
    Size,
    check_pixels,
    header,
    orientation,
    picture_size,
)
from dit_jax.data.pixels.stored import Stored
from dit_jax.data.pixels.stores import ImageStore, open_images
from dit_jax.data.pixels.transforms import (
    SIDE,
    UNCHANGED,
    Augmentation,
    Content,
    antialiased,
    augment,
    content_box,
    inside,
    letterbox,
    place,
    resize,
    restore,
    stretch,
    swap_left_right,
)

__all__ = [
    "LARGE",
    "MARGIN",
    "SIDE",
    "UNCHANGED",
    "Augmentation",
    "Content",
    "Frame",
    "ImageStore",
    "Size",
    "Stored",
    "antialiased",
    "augment",
    "broken_parts",
    "check_pixels",
    "content_box",
    "decode_image",
    "depth",
    "drawn",
    "entry_mask",
    "far_ends",
    "frame",
    "header",
    "in_pixels",
    "inside",
    "letterbox",
    "looks_like_corners",
    "near",
    "open_images",
    "orientation",
    "picture_size",
    "pictures",
    "place",
    "read_entry",
    "resize",
    "restore",
    "run_lengths",
    "stretch",
    "swap_left_right",
]
