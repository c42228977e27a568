"""`--mode=probe`: does a trained model read its words? See `dit_jax.eval.probe.cases`."""

from pathlib import Path
from typing import Any

from dit_jax import config as configs
from dit_jax import storage, viz
from dit_jax.data.pipeline import Batch
from dit_jax.eval import probe as probes
from dit_jax.eval.predictions import Answers
from dit_jax.eval.report import write_text
from dit_jax.train import step as steps
from dit_jax.train import trained
from dit_jax.train.sources import Datasets, Scored
from dit_jax.train.trained import Trained
from dit_jax.train.workdir import held

RESAMPLES = 1000  # where eval.bootstrap is 0: verdicts need intervals


def probe(config: configs.Config, workdir: Path, *, model_dir: Path | None = None) -> None:
    """Probe a model directory, or the best checkpoint of `workdir`, on every evaluation split.

    Writes `<workdir>/probe/<dataset>-<split>.json`, `.md` and `.png`, and `…-stuck.png` where
    some answers were right but stayed when another object was asked for.
    """
    trained.expect(workdir, model_dir)
    with held(workdir, purpose="probing", inside=("probe",)):
        datasets = Datasets.of(config.data, size=config.model.image_size)
        datasets.check()
        found = trained.load(config, workdir, model_dir=model_dir)
        about = _settings(config, found)
        for split in datasets.splits:
            result = _probe_split(found, split, config=config, settings=about)
            path = workdir / "probe" / f"{split.dataset}-{split.name}"
            names = {"dataset": split.dataset, "split": split.name}
            _write(result, path, about=names | {"model": str(model_dir or workdir)} | about)
            print(f"{split.dataset} {split.name}\n{probes.report.table(result)}\n", flush=True)
    print(f"Reports and figures are in {storage.named(workdir / 'probe')}.")


def _probe_split(
    found: Trained, split: Scored, *, config: configs.Config, settings: dict[str, Any]
) -> probes.Result:
    model = found.model

    def predict(batch: Batch) -> Answers:
        return model.predict(found.params, steps.place_batch(batch, model.mesh))

    about = dict(size=model.arch.image_size, batch_size=config.eval.batch_size)
    about |= dict(ahead_bytes=config.data.ahead_bytes())
    return probes.probe(predict, split.open(), model.tokenizer, **about, **settings)


def _settings(config: configs.Config, found: Trained) -> dict[str, Any]:
    """What the answers and the figures depend on."""
    return {
        "limit": config.probe.limit,
        "seed": config.probe.seed,
        "threshold": config.eval.threshold,
        "presence_threshold": trained.presence_threshold(config.eval, found.folder),
        "resamples": config.eval.bootstrap or RESAMPLES,
    }


def _write(result: probes.Result, path: Path, *, about: dict[str, Any]) -> None:
    """`path` without its ending, to which endings are added: a split's name may hold dots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name
    write_text(path.with_name(f"{name}.json"), probes.report.as_json(result, about=about))
    write_text(path.with_name(f"{name}.md"), probes.report.as_markdown(result, about=about))
    title = f"{about['dataset']}, {about['split']}"
    probes.figure.save(result, path.with_name(f"{name}.png"), title=title)
    stuck = path.with_name(f"{name}-stuck.png")
    if result.stuck:
        viz.save_grid(result.stuck, stuck)
    else:
        stuck.unlink(missing_ok=True)  # of a probe before this one
