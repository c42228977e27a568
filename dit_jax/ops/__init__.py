"""Arithmetic without parameters: arrays in, arrays out, with reverse derivatives written out.

In: arrays of a batch. Out: arrays. Read `attention/`, most of it. `norm`, `gelu` and `linear` are
the layers' arithmetic, `norm_kernel`, `norm_mosaic` and `triton` what NVIDIA GPUs get instead;
`kernel_check` holds such kernels to their definitions. `pixels`, `letterbox` and `resize` turn
pictures into inputs and logits into masks; `rematerialise` says what the backward pass keeps,
`mesh` and `platform` what a program is written for, `arrays` what may be given.
"""
