"""SAM, BERT and what DIT puts between them: parameters live here, arithmetic in `ops`.

In: normalised pictures, token ids, points, boxes. Out: mask logits and predicted IoUs. Read
`injection` first, the whole paper: which tokens stand in front of the image when block i runs; then
`dit_sam`, which joins `text_encoder`, `image_encoder`, `prompt_encoder` and `mask_decoder`, made of
`layers`. `architecture` is a model as data, `params` its weights as plain dicts, `initial` how they
start. `loop` runs the blocks as one, `prompting` points and boxes in rounds, `word_attention` is a
forward pass that keeps what words get, `flops` counts.
"""
