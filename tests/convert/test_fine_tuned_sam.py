"""SAM that was fine-tuned at another size: which blocks are global, told by the whole file."""

import jax
import numpy as np
import pytest
from checkpoints import in_sam, random_state, run
from closeness import assert_close
from live_sam import random_sam
from peers import torch
from safetensors.numpy import load_file, save_file

import dit_jax
from dit_jax.convert import sources
from dit_jax.models.architecture import Architecture, Injection, Vit
from dit_jax.weights import directory


def write(folder, *, grid, rows, width=32, heads=2):
    """A SAM's file with `rows` of the relative-position tables, a number for each block."""
    vit = Vit(depth=len(rows), width=width, heads=heads, global_blocks=(), window=2, grid=grid)
    state = random_state(Architecture(vit, None, Injection.NONE, windowed=True))
    rng = np.random.default_rng(1)
    for i, count in enumerate(rows):
        for side in "hw":
            table = rng.standard_normal((count, width // heads)).astype(np.float32)
            state[f"visual_encoder.blocks.{i}.attn.rel_pos_{side}"] = table
    save_file(in_sam(state), folder / "sam.safetensors")
    return folder / "sam.safetensors"


S, G = 27, 127  # rows of windows of 14, and of 64×64 positions: SAM's own
CASES = {  # positions a side, rows of each block → global blocks, window, what their tables span
    "as published": (64, (S, G, S, G), (1, 3), 14, None),
    "14, published tables": (14, (S, G, S, G), (1, 3), 14, 64),
    "32, published tables": (32, (S, G, S, G), (1, 3), 14, 64),
    "16, published tables": (16, (S, S, G), (2,), 14, 64),
    "10, published tables": (10, (S, G), (1,), 14, 64),
    "60, published tables": (60, (G, S), (0,), 14, 64),
    "32, resized": (32, (S, 63, S), (1,), 14, None),
    "16, resized": (16, (S, 31), (1,), 14, None),
    "10, resized": (10, (S, 19), (1,), 14, None),
    "14, resized: one size, one role": (14, (S, S), (0, 1), 14, None),
    "windows of 7 in 14": (14, (13, S), (1,), 7, None),
    "windows of 3 in 8": (8, (5, 15), (1,), 3, None),
    "windows of 3 in 6, tables of 8": (6, (5, 15), (1,), 3, 8),
    "global alone": (8, (15, 15), (0, 1), 14, None),
    "global alone, published tables": (32, (G, G), (0, 1), 14, 64),
    "windows alone": (64, (S, S), (), 14, None),
}


@pytest.mark.parametrize("case", CASES)
def test_roles(tmp_path, case):
    grid, rows, spanning, window, table_grid = CASES[case]
    arch, _ = sources.sam(write(tmp_path, grid=grid, rows=rows))
    vit = arch.vit
    assert (vit.global_blocks, vit.window, vit.table_grid) == (spanning, window, table_grid)
    assert vit.grid == grid and arch.image_size == 16 * grid


UNCLEAR = {
    "windows of 4, or of 8 and tables of 4": (4, (7, 15)),
    "neither of 14 nor of 12": (12, (S, 19)),
    "one size that is SAM's window": (10, (S, S)),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_roles_that_are_asked_for(tmp_path, capsys, case):
    grid, rows = UNCLEAR[case]
    source = write(tmp_path, grid=grid, rows=rows)
    assert run("sam", source, tmp_path / "out") == 1
    assert (
        "leave open which blocks attend globally: give --global-blocks" in capsys.readouterr().err
    )
    for blocks, expected in (("0", (0,)), ("1,1", (1,)), ("none", ())):
        if len(set(rows)) == 1 or expected:
            assert run("sam", source, tmp_path / blocks, f"--global-blocks={blocks}") == 0
            assert directory.read(tmp_path / blocks)[0].vit.global_blocks == expected


@pytest.mark.parametrize("blocks", ["7", "0,1", "none"])
def test_roles_that_cannot_be(tmp_path, capsys, blocks):
    source = write(tmp_path, grid=4, rows=(7, 15))
    assert run("sam", source, tmp_path / "out", f"--global-blocks={blocks}") == 1
    message = capsys.readouterr().err
    assert "do not exist: it has 0 … 1" in message or "rows; expected one size" in message


def test_three_sizes_are_refused(tmp_path, capsys):
    assert run("sam", write(tmp_path, grid=8, rows=(5, 7, 15)), tmp_path / "out") == 1
    assert "tables have [5, 7, 15] rows; expected two sizes" in capsys.readouterr().err


def test_positions_that_are_no_square(tmp_path, capsys):
    source = write(tmp_path, grid=4, rows=(7, 7))
    state = load_file(source)
    state["image_encoder.pos_embed"] = np.zeros((1, 4, 5, 32), np.float32)
    save_file(state, source)
    assert run("sam", source, tmp_path / "out") == 1
    assert "its image_encoder.pos_embed is 4×5; expected a square" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("image", "window", "rows"),
    [(160, 14, G), (224, 14, G), (256, 14, G), (512, 14, G), (64, 4, 31)],
)
def test_as_live_pytorch(tmp_path, image, window, rows):
    """Tables of a larger grid beside 10×10 to 32×32 positions, which SAM resizes as it runs.

    Windows are larger than the grid, as large, and smaller.
    """
    theirs = random_sam(image=image, window=window)
    attention = theirs.vision_encoder.layers[1].attn
    for side in ("rel_pos_h", "rel_pos_w"):
        setattr(attention, side, torch.nn.Parameter(0.2 * torch.randn(rows, 16)))
    torch.save(theirs.state_dict(), tmp_path / "sam.pth")
    options = ["--global-blocks=1"] if window == 4 else []  # may be windows of 16 as well
    assert run("sam", tmp_path / "sam.pth", tmp_path / "out", *options) == 0
    ours = dit_jax.load(tmp_path / "out")
    assert ours.arch.vit.global_blocks == (1,) and 2 * ours.arch.vit.table_grid - 1 == rows
    pixels = np.random.default_rng(0).standard_normal((1, image, image, 3), np.float32)
    with torch.no_grad():
        expected = theirs.get_image_embeddings(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    actual = jax.jit(ours.encode_image)(pixels)
    assert_close(actual, expected.permute(0, 2, 3, 1), "image embeddings")
    assert run("reverse", "--format=sam", tmp_path / "out", tmp_path / "back.pth") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    table = theirs.state_dict()["vision_encoder.layers.1.attn.rel_pos_h"]
    assert torch.equal(back["image_encoder.blocks.1.attn.rel_pos_h"], table)
    assert run("sam", tmp_path / "back.pth", tmp_path / "again") == 0  # which notes the roles
    assert directory.read(tmp_path / "again")[0] == ours.arch
