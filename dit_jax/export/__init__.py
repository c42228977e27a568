"""A model handed on: `--mode=export`, docs/deploy.md.

In: a model directory, or a pack on its base (`source`). Out: a folder that is written whole or not
at all, with a manifest and a model card. Read `formats`, the table of forms: `stablehlo` and `onnx`
write `program`, everything between a picture's bytes and its mask; `run` lies beside what they
write and uses it without this package.
"""
