"""Data: from files on disk to batches of NumPy arrays; knows no JAX model.

annotations/  files ─▶ Annotations: what people say, before a picture is opened
check/        Annotations ─▶ what is wrong with them, said before anything is built
records/      Annotations ─▶ array records, written once, read by position: a Source
shapes/       nothing ─▶ a Source: the embedded data set
mix           Sources ─▶ one Source
pipeline/     Source ─▶ Batch, with `tokenizer`
pixels/       pictures and masks, for all of them

In: annotation files and pictures. Out: `Batch`es. Read `entries` and `referent` first, what passes
between the rooms: an Entry before, a Referent after its picture is decoded. `prepare` is the
command that reads, checks and builds; `from_pillow` reads pictures here and in exported programs.
"""
