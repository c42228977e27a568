"""Data: from files on disk to batches of NumPy arrays; knows no JAX model.

annotation files ─▶ Annotations         refer, grefer (coco: what both share; safe_pickle…), folder…
Annotations ─▶ what is wrong with them  check…, published, masks, images
Annotations ─▶ array records ─▶ Source  records…; prepare: the command, datasets: the kinds
nothing ─▶ Source                       shapes…, the embedded data set
Sources ─▶ one Source                   mix
Source ─▶ Batch                         pipeline: items, batches, transforms, tokenizer

`entries` and `referent` say what passes between them: an Entry before, a Referent after its picture
is decoded.
"""
