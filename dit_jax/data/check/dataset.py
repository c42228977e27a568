"""Everything that can be wrong with a data set, found before anything is built from it.

Every picture is opened, but none is decoded that is evidently whole: `records.build` does that. Own
pictures of several splits are, at an eighth of their size, to be compared.
"""

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from dit_jax.data.annotations import PUBLISHED
from dit_jax.data.check import likeness
from dit_jax.data.check.masks import mask_problems
from dit_jax.data.check.report import Problem, Report
from dit_jax.data.entries import Annotations, Entry, NamedBox
from dit_jax.data.pixels import (
    LARGE,
    Frame,
    ImageStore,
    Size,
    depth,
    far_ends,
    frame,
    looks_like_corners,
    open_images,
    orientation,
    picture_size,
)
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.strict import counted

__all__ = ["Problem", "Report", "check"]

T = TypeVar("T")
READERS = 8  # pictures that are read at once
MANY = 20  # shapes of which some reach farther, where their numbers are pixels
SPLIT_NAME = re.compile(r"train|val|test\w*")


class Seen(NamedTuple):
    """What there is to know of a picture."""

    stored: Size
    orientation: int  # EXIF's
    depth: str  # what is to be said of its bits
    fields: likeness.Fields | None  # None where it is not compared with others


def check(
    annotations: Annotations,
    *,
    tokenizer: Tokenizer | None = None,
    pictures: bool = True,
    progress: bool = True,
) -> Report:
    """All problems of a data set, none of which raises.

    Args:
      tokenizer: says which sentences are cut; None leaves that out.
      pictures: whether pictures are opened; where they are not, masks are checked as far as the
        annotations say how large the pictures are.
      progress: bars on a terminal.
    """
    splits = annotations.splits
    entries = [entry for split in splits.values() for entry in split]
    seen: dict[str, Seen] = {}
    read = (*annotations.left_out, *annotations.remarks)
    problems = [Problem(note.kind, False, note.name, note.text) for note in read]
    problems += [*_counts(annotations), *_numbers(annotations.dataset, entries)]
    problems += [*_shared_pictures(annotations), *_sentences(entries), *_several(annotations)]
    if tokenizer is not None:
        problems += _tokens(entries, tokenizer, progress=progress)
    if pictures:
        seen, found = _pictures(annotations, entries, progress=progress)
        problems += found
    problems += _unknown_masks(annotations.dataset, entries)
    problems += [
        *_corners(annotations.dataset, entries, seen),
        *_shares(annotations.dataset, entries, seen),
    ]
    for entry in _bar(entries, "masks", progress):
        problems += mask_problems(entry, _size(entry, seen))
    return Report(
        dataset=annotations.dataset,
        counts={name: (len(s), sum(len(e.expressions) for e in s)) for name, s in splits.items()},
        pictures={name: len(_identities(s)) for name, s in splits.items()},
        nothing={name: sum(e.segmentations == () for e in s) for name, s in splits.items()},
        problems=tuple(problems),
        unchecked=tuple(_unchecked(entries, tokenizer, seen, pictures)),
    )


def _counts(annotations: Annotations) -> Iterator[Problem]:
    """Splits that are not those that were published, or not as large."""
    name, published = annotations.dataset, PUBLISHED.get(annotations.dataset, {})
    for split, expected in published.items():
        entries = annotations.splits.get(split, ())
        found = (len(entries), sum(len(entry.expressions) for entry in entries))
        wrong = [
            f"expected {b:,} {what}, found {f'{a:,}' if a else 'none'}"
            for what, a, b in zip(("referents", "expressions"), found, expected, strict=True)
            if b is not None and a != b
        ]
        if wrong:
            text = f"{split}: {'; '.join(wrong)}."
            yield Problem("splits of other sizes than published", False, name, text)
    for split in annotations.splits:
        usual = split in published if published else SPLIT_NAME.fullmatch(split)
        if not usual:
            expected = ", ".join(published) or "train, val or test…"
            text = f"there is a split {split!r}, expected {expected}."
            yield Problem("splits of unusual names", False, name, text)


def _numbers(dataset: str, entries: Sequence[Entry]) -> Iterator[Problem]:
    """ref_ids that several referents share."""
    for number, count in Counter(entry.ref_id for entry in entries).items():
        if count > 1:
            text = f"{count} referents have the ref_id {number}."
            yield Problem("ref_ids that repeat", False, dataset, text)


def _shared_pictures(annotations: Annotations) -> Iterator[Problem]:
    identities = {split: _identities(entries) for split, entries in annotations.splits.items()}
    for a, b in combinations(identities, 2):
        if shared := identities[a] & identities[b]:
            how_many, first = counted(len(shared), "picture"), min(shared, key=str)
            text = f"{a} and {b} share {how_many}, such as {first}."
            yield Problem("pictures in two splits", False, annotations.dataset, text)


def _identities(entries: Sequence[Entry]) -> set[int | str]:
    return {e.file_name if e.image_id is None else e.image_id for e in entries}


def _sentences(entries: Sequence[Entry]) -> Iterator[Problem]:
    for entry in entries:
        if not entry.expressions:
            yield Problem("referents without an expression", True, entry.name, "nothing is said.")
        for text, count in Counter(entry.expressions).items():
            if not text.strip():
                yield Problem("expressions without a word", True, entry.name, f"{text!r}.")
            elif count > 1:
                said = f"{text!r} is said {count} times."
                yield Problem("sentences that repeat for a referent", False, entry.name, said)


def _several(annotations: Annotations) -> Iterator[Problem]:
    """Words whose truths contradict each other: own ones that mean several objects of a picture."""
    if annotations.reading.captions == "optional":
        return
    meant: dict[tuple[str, str, str], list[Entry]] = {}
    for split, entries in annotations.splits.items():
        for entry in (entry for entry in entries if entry.image_id is None):
            for text in entry.expressions:
                found = meant.setdefault((split, entry.file_name, text), [])
                if all(entry.segmentations != other.segmentations for other in found):
                    found.append(entry)
    kind = "words that mean several objects of a picture"
    for (_, picture, text), (first, *others) in meant.items():
        if others:
            count = f"{len(others) + 1} masks of {picture}"
            said = f"{text!r} means {count}, such as that of {others[0].name}."
            yield Problem(kind, False, first.name, said)


def _tokens(entries: Sequence[Entry], tokenizer: Tokenizer, *, progress: bool) -> list[Problem]:
    said = [(entry, text) for entry in entries for text in entry.expressions if text.strip()]
    tokens = _bar(tokenizer.uncut([text for _, text in said]), "sentences", progress, len(said))
    problems = []
    for (entry, text), ids in zip(said, tokens, strict=True):
        if len(ids) <= 2:  # [CLS] and [SEP]
            kind, name = "expressions without a word", entry.name
            problem = Problem(kind, True, name, f"{text!r}.", unseen=name)
        elif len(ids) > tokenizer.length:
            length = f"{len(ids)} tokens, {tokenizer.length} are read: {text!r}"
            problem = Problem("sentences that are cut", False, entry.name, length)
        elif tokenizer.unknown in ids:
            problem = Problem("words outside the vocabulary", False, entry.name, f"{text!r}.")
        else:
            continue
        problems.append(problem)
    return problems


def _pictures(
    annotations: Annotations, entries: Sequence[Entry], *, progress: bool
) -> tuple[dict[str, Seen], list[Problem]]:
    """Sizes and EXIF orientations by file name, and what is wrong with the other pictures."""
    try:
        store = open_images(annotations.images)
    except ValueError as error:
        return {}, [Problem("pictures that are all missing", True, annotations.dataset, str(error))]
    first = {entry.file_name: entry for entry in reversed(entries)}
    count = Counter(entry.file_name for entry in entries)
    seen, problems = {}, []
    alone = threading.Lock()
    # COCO's pictures are known by their numbers.
    compared = len(annotations.splits) > 1 and any(entry.image_id is None for entry in entries)
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda name: _picture(store, name, alone, compared=compared), first)
        for name, one in zip(first, _bar(found, "pictures", progress, len(first)), strict=True):
            if isinstance(one, Seen):
                seen[name] = one
                continue
            kind, text = ("cannot be read" if name in store else "are missing"), one
            more = f" ({count[name]} referents)" if count[name] > 1 else ""
            problems.append(Problem(f"pictures that {kind}", True, first[name].name, text + more))
    for name, one in seen.items():
        if one.depth:
            text = f"{name} {one.depth}"
            problems.append(Problem("pictures of more than 8 bits", False, first[name].name, text))
    if compared:
        problems += _alike(annotations, seen)
    return seen, [*problems, *_turned(entries, seen), *_other_sizes(entries, seen)]


def _alike(annotations: Annotations, seen: dict[str, Seen]) -> Iterator[Problem]:
    splits: dict[str, dict[str, likeness.Fields]] = {}
    for split, entries in annotations.splits.items():
        there = {entry.file_name: seen.get(entry.file_name) for entry in entries}
        splits[split] = {
            n: one.fields for n, one in there.items() if one and one.fields is not None
        }
    for split, name, other, theirs in likeness.alike(splits):
        text = f"{name} of {split} looks like {theirs} of {other}: the same picture, saved anew?"
        yield Problem("pictures that look alike in two splits", False, annotations.dataset, text)


def _picture(store: ImageStore, name: str, alone: threading.Lock, *, compared: bool) -> Seen | str:
    """What there is to know of a picture, or what is wrong with it; large ones one by one."""
    with alone if store.size(name) > LARGE else contextlib.nullcontext():
        try:
            data = store.read(name)
            size, turn = picture_size(data, name=name), orientation(data)
            found = likeness.fields(data, size=size, orientation=turn) if compared else None
            return Seen(size, turn, depth(data, name=name), found)
        except ValueError as error:
            return str(error)


def _frame(entry: Entry, seen: dict[str, Seen]) -> Frame | None:
    if (found := seen.get(entry.file_name)) is None:
        return None
    return frame(entry, stored=found.stored, orientation=found.orientation)


def _size(entry: Entry, seen: dict[str, Seen]) -> Size | None:
    """What is claimed, or the picture's own."""
    found = _frame(entry, seen)
    return entry.size or (found and found.size)


def _turned(entries: Sequence[Entry], seen: dict[str, Seen]) -> Iterator[Problem]:
    """Pictures that EXIF turns, where that is not how they are read; each once. And those whose
    lines were drawn on different frames, by what each says alone."""
    said, ways = set(), {}
    for entry in entries:
        found = _frame(entry, seen)
        if found is None:
            continue
        first, turn = ways.setdefault(entry.file_name, (entry.name, found.orientation))
        if turn != found.orientation:
            here, there = ("stored" if one == 1 else "shown" for one in (found.orientation, turn))
            text = (
                f"{entry.file_name} fits as it is {here}, and for {first} as it is {there};"
                " expected --orientation=stored or upright, whichever all were drawn on."
            )
            kind, picture = "pictures that are read two ways up", entry.file_name
            yield Problem(kind, True, entry.name, text, unseen=picture)
        if found.remark and (entry.file_name, found.remark) not in said:
            said.add((entry.file_name, found.remark))
            text = f"{entry.file_name}: {found.remark}"
            yield Problem("pictures that EXIF turns", False, entry.name, text)


def _other_sizes(entries: Sequence[Entry], seen: dict[str, Seen]) -> Iterator[Problem]:
    for entry in entries:
        found = _frame(entry, seen)
        real = found and found.size
        if entry.size is not None and real is not None and entry.size != real:
            text = (
                f"the annotations say {entry.size[0]}x{entry.size[1]} (height x width) but"
                f" {entry.file_name} is {real[0]}x{real[1]}."
            )
            yield Problem("pictures of another size", True, entry.name, text)


def _unknown_masks(dataset: str, entries: Sequence[Entry]) -> Iterator[Problem]:
    unknown = sum(entry.segmentations is None for entry in entries)
    if unknown:
        text = (
            f"instances.json is missing, and with it the masks of {counted(unknown, 'referent')}."
        )
        yield Problem("masks that are unknown", True, dataset, text)


def _corners(dataset: str, entries: Sequence[Entry], seen: dict[str, Seen]) -> Iterator[Problem]:
    """A data set whose boxes all can be corners, and some can be nothing else."""
    boxes = [
        (entry, segmentation)
        for entry in entries
        for segmentation in entry.segmentations or ()
        if isinstance(segmentation, tuple) and not isinstance(segmentation, NamedBox)
    ]
    suspects = []
    for entry, box in boxes:
        size = _size(entry, seen)
        if size and looks_like_corners(box, height=size[0], width=size[1]):
            suspects.append(entry.name)
    if suspects and all(x < width and y < height for _, (x, y, width, height) in boxes):
        text = (
            f"{len(suspects):,} of {len(boxes):,} boxes leave their pictures as x, y, width,"
            f" height, such as {suspects[0]}, and all of them can be corners; name them box_xyxy,"
            " or box_xywh."
        )
        yield Problem("boxes that look like corners", True, dataset, text)


def _shares(dataset: str, entries: Sequence[Entry], seen: dict[str, Seen]) -> Iterator[Problem]:
    """A data set whose shapes are all within 0 … 100, or 1000, of pictures that are far larger:
    annotation tools write percents, language models per mille."""
    farthest, sides = [], []
    for entry in entries:
        size, ends = _size(entry, seen), [max(end) for end in far_ends(entry)]
        if entry.image_id is None and entry.units == "pixel" and size and ends:
            farthest.append(max(ends))
            sides.append(min(size))
    for whole in (100, 1000):
        if len(sides) >= MANY and whole / 2 < max(farthest) <= whole and min(sides) >= 2 * whole:
            text = (
                f"all {len(sides):,} polygons and boxes lie within 0 … {whole}, and no picture has"
                f" a side below {min(sides)} pixels: are they shares of {whole}? Pixels are meant."
            )
            yield Problem("shapes that look like shares", False, dataset, text)


def _unchecked(
    entries: Sequence[Entry], tokenizer: Tokenizer | None, seen: dict[str, Seen], pictures: bool
) -> Iterator[str]:
    if tokenizer is None:
        yield "which sentences are cut, because no vocabulary was given (--vocab)."
    if not pictures:
        yield "pictures."
    hidden = sum(
        entry.size is None and entry.file_name not in seen and bool(entry.segmentations)
        for entry in entries
    )
    if hidden:
        yield f"{counted(hidden, 'mask')}, because nothing says how large their pictures are."


def _bar(items: Iterable[T], what: str, progress: bool, total: int | None = None) -> Iterable[T]:
    """A progress bar where there is a terminal."""
    options: dict[str, Any] = {"total": total, "desc": f"check {what}", "leave": False}
    return tqdm(items, disable=None if progress else True, **options)
