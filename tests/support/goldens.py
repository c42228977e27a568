"""A recorded model of the PyTorch references, and ours converted from the same weights."""

import importlib.util
import json

import numpy as np
from peers import torch

import dit_jax
from dit_jax.convert.__main__ import main as convert

VARIANTS = ["layer_wise", "e2e", "default_sam"]


class Golden:
    """One recorded model: arrays, description, and our model converted from the same weights."""

    def __init__(self, folder, name, tmp):
        self.name = name
        spec = importlib.util.spec_from_file_location("weights", folder / "goldens/weights.py")
        self.weights = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.weights)
        self.arrays = dict(np.load(folder / f"goldens/{name}.npz"))
        self.about = json.loads((folder / f"goldens/{name}.json").read_text())
        state = self.weights.state_dict(self.about["shapes"])
        self.checkpoint = tmp / f"{name}.pth"
        torch.save({k: torch.from_numpy(v) for k, v in state.items()}, self.checkpoint)
        self.directory = tmp / name
        options = ["--variant", name] if name in ("layer_wise", "e2e") else []
        kind = "sam" if name == "sam" else "dit"
        assert convert([kind, str(self.checkpoint), str(self.directory), *options]) == 0
        self.model = dit_jax.load(self.directory)

    def text(self):
        return self.arrays["in_input_ids"], self.arrays["in_attention_mask"]

    def images(self):
        return channels_last(self.arrays["in_image"])


def channels_last(x):
    return np.moveaxis(x, 1, -1)
