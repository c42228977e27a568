"""L-DIT's loss in JAX and in PyTorch: the same weights, the same batches, 300 steps.

    python -m experiments.beside_torch

PyTorch's model is stated once more from the paper (`benchmarks/torch_ldit.py`) and trained by
PyTorch's own Adam. JAX trains with three seeds, which differ in the order of data; PyTorch sees the
first one's batches. What is asked: is PyTorch's curve inside the band of the seeds, and how far is
it from the curve of its own seed? The figure is docs/beside_torch.png.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.torch_ldit import LDit
from dit_jax.config import Config
from dit_jax.configs import miniature
from dit_jax.figures import curves
from dit_jax.models.params import Params
from dit_jax.train import optim
from dit_jax.train import state as states
from dit_jax.train import step as steps
from dit_jax.train.run import Run

RESULTS = Path(__file__).parent / "results" / "beside_torch.json"
FIGURE = Path(__file__).parents[1] / "docs" / "beside_torch.png"
STEPS, SMOOTHED = 300, 20
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        run = run_of(seed, options.steps)
        batches = [next(run.batches) for _ in range(options.steps)]
        run.batches.close()
        start = states.create(first_params(run), freeze=run.config.freeze(), rules=run.config.optim)
        if not found:
            found["PyTorch, seed 0"] = in_torch(run, states.evaluated(start), batches)
        found[f"JAX, seed {seed}"] = in_jax(run, start, batches)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(
        json.dumps({name: [round(x, 6) for x in losses] for name, losses in found.items()}) + "\n"
    )
    runs = {name: {curves.LOSS: smooth(losses)} for name, losses in found.items()}
    curves.save(runs, options.figure)
    print(compared(found))


def run_of(seed: int, count: int) -> Run:
    """Without masks of padding, which the paper's model does not have."""
    values = miniature.get_config("ldit_vit_b")
    values.seed = seed
    values.model.mask_padding = False
    values.optim.update(name="adam", lr=7e-4, batch_size=16, max_steps=count, ema=0.0)
    return Run.of(Config.from_dict(values), Path())


def first_params(run: Run) -> Params:
    """Every seed starts from the first one's: what is new is drawn once."""
    return states.evaluated(
        run_of(SEEDS[0], run.total).first_state(
            jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state())
        )
    )


def in_jax(run: Run, state: states.TrainState, batches: list[dict]) -> list[float]:
    placement = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state())
    train, state = run.train_step(placement), jax.device_put(state, placement)
    losses = []
    for batch in batches:
        placed = steps.place_batch(batch, run.model.mesh)
        state, metrics = train(state, placed, jax.random.key(run.config.seed))
        losses.append(metrics["loss"])
    return [float(loss) for loss in losses]


def in_torch(run: Run, params: Params, batches: list[dict]) -> list[float]:
    rules = run.config.optim
    model = LDit(run.model.arch, attention="explicit").load(params)
    adam = torch.optim.Adam(model.parameters(), lr=rules.lr, betas=rules.betas, eps=rules.eps)
    rate = optim.schedule(rules, steps_per_epoch=run.steps_per_epoch)
    losses = []
    for number, batch in enumerate(batches):
        inputs = {
            name: torch.from_numpy(np.array(value))
            for name, value in steps.prepare({key: batch[key] for key in steps.USED}).items()
        }
        images = inputs["images"].permute(0, 3, 1, 2)
        logits = model(images, inputs["input_ids"].long(), inputs["attention_mask"])
        loss = F.binary_cross_entropy_with_logits(logits, inputs["target"])
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), rules.clip)
        adam.param_groups[0]["lr"] = float(rate(number))
        adam.step()
        losses.append(loss.item())
    return losses


def smooth(losses: list[float]) -> curves.Curve:
    """Means of `SMOOTHED` steps, each at its last step."""
    means = np.convolve(losses, np.ones(SMOOTHED) / SMOOTHED, mode="valid")
    return curves.Curve(list(range(SMOOTHED, len(losses) + 1)), means.tolist())


def compared(found: dict[str, list[float]]) -> str:
    """How often PyTorch's smoothed curve is within two standard deviations of JAX's seeds, and how
    far from that of its own batches."""
    theirs, *ours = (np.array(smooth(losses).values) for losses in found.values())
    inside = np.abs(theirs - np.mean(ours, axis=0)) <= 2 * np.std(ours, axis=0, ddof=1)
    torch_losses, own, *_ = map(np.array, found.values())
    apart = np.abs(torch_losses / own - 1)
    tenth = np.abs(theirs / ours[0] - 1).max()
    return (
        f"{100 * inside.mean():.0f} % of {len(theirs)} means of {SMOOTHED} steps are within the"
        f" seeds' mean ± 2 standard deviations. On the same batches: {apart[0]:.1e} apart in the"
        f" first step, {apart[:10].max():.1e} in the first ten, {tenth:.1e} at most in a mean."
    )


if __name__ == "__main__":
    main()
