"""PyTorch checkpoints to model directories and back: `python -m convert --help`.

In: SAM, BERT or DIT as others save them. Out: a model directory, and the way back (`reverse`). Read
`__main__`, the commands, then `sources`, which tells what a source is: `files` and `checkpoint`
read it (`inert`, `kinds`: what is set aside or refused), `infer` and `beside` find its
architecture. `transfer` fills a model by `layout` and `names`, `assemble` joins SAM and BERT,
`hugging_face` writes for `SamModel`. All knowledge of PyTorch's names and axes lives here.
"""
