"""Checkpoints as other people have them: small, random values under PyTorch's names."""

import numpy as np
from peers import torch

from dit_jax.convert import names, transfer
from dit_jax.convert.__main__ import main as convert
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit

VIT = Vit(depth=2, width=32, heads=2, global_blocks=(1,), window=3, grid=4)
BERT = Bert(vocab=40, depth=2, width=64, heads=1, mlp_width=48, positions=24)


def random_state(arch, *prefixes, seed=0):
    """Random values under the released code's names, of all parameters or of some components."""
    rng = np.random.default_rng(seed)
    flat = params_lib.flatten(params_lib.init(arch))
    return transfer.to_state(
        {
            path: rng.standard_normal(v.shape).astype(np.float32)
            for path, v in flat.items()
            if path.startswith(prefixes or "")
        }
    )


def state_of(arch, seed=0):
    """A reference state dict for `arch`: random values, the unused tensors included."""
    rng = np.random.default_rng(seed + 1)
    state = random_state(arch, seed=seed)
    unused = {
        "lang_encoder.bert.pooler.dense.weight": (64, 64),
        "lang_encoder.bert.pooler.dense.bias": (64,),
    }
    if arch.injection != Injection.NONE:  # the released default fusion declares nothing more
        unused |= names.DECLARED
    state |= {n: rng.standard_normal(shape).astype(np.float32) for n, shape in unused.items()}
    return state


def in_sam(state):
    """Under Meta's names."""
    return {names.META.write(name): value for name, value in state.items()}


def tensors(state):
    return {name: torch.from_numpy(value) for name, value in state.items()}


def dit(injection, **settings):
    return Architecture(VIT, BERT, Injection(injection), text_layer=1, **settings)


def run(*argv):
    return convert([str(word) for word in argv])


def write_vocab(path, count, *, odd=()):
    """A vocabulary of so many pieces, some of them `odd`."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *odd]
    words += [f"word{i}" for i in range(count - len(words))]
    path.write_bytes("".join(f"{word}\n" for word in words).encode())
    return path
