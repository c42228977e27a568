"""Scores of a model on a run's evaluation splits: during training, at its end, or alone."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from dit_jax import config as configs
from dit_jax.data.pipeline import Batch
from dit_jax.eval import report
from dit_jax.eval.evaluate import Evaluation, evaluate
from dit_jax.eval.metrics import Scores
from dit_jax.eval.predictions import Answers
from dit_jax.models.params import Params
from dit_jax.train import step as steps
from dit_jax.train import trained
from dit_jax.train.model import Model
from dit_jax.train.placement import hosts
from dit_jax.train.sources import Datasets, Scored
from dit_jax.train.stop import Stop, Stopped
from dit_jax.train.workdir import held

About = dict[str, Any]  # what the model was trained on, as `Run.meta` says it


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores parameters of one model on a run's splits, under every protocol of its config.

    Hosts share the expressions; each gets all scores, the first one writes them.
    """

    model: Model
    splits: tuple[Scored, ...]
    workdir: Path
    rules: configs.Eval
    limit: int  # expressions of a split; 0 = all
    pictures: int  # answers that are kept to be drawn
    ahead_bytes: int  # of batches that are made ahead

    @staticmethod
    def of(config: configs.Config, workdir: Path, *, model: Model, datasets: Datasets) -> "Scorer":
        return Scorer(
            model,
            datasets.splits,
            workdir,
            config.eval,
            limit=config.data.eval_limit,
            pictures=config.train.pictures,
            ahead_bytes=config.data.ahead_bytes(),
        )

    def split(
        self, params: Params, split: Scored, *, about: About | None, stop: Stop | None = None
    ) -> Evaluation:
        """Score one split, and write the scores; raises Stopped where `stop` is asked for."""
        share, rules = hosts.share(self.model.mesh), self.rules
        lines = self.workdir / "predictions" / f"{split.dataset}-{split.name}.jsonl"
        several = functools.partial(hosts.gather, readers=share.readers)
        result = evaluate(
            self._predict(params, stop),
            split.open(),
            self.model.tokenizer,
            size=self.model.arch.image_size,
            batch_size=rules.batch_size // share.count,
            protocols=rules.protocols,
            threshold=rules.threshold,
            presence_threshold=rules.presence_threshold,
            bootstrap=rules.bootstrap,
            limit=self.limit,
            keep=self.pictures,
            predictions_path=lines if rules.predictions and share.reads else None,
            about={"dataset": split.dataset, "split": split.name},
            shard_index=share.index,
            shard_count=share.count,
            gather=several if share.count > 1 else None,
            ahead_bytes=self.ahead_bytes,
        )
        if hosts.is_primary():
            remarks = {"trained_on": about}
            where = (self.workdir, split.dataset, split.name)
            report.write_scores(*where, result.scores, remarks=remarks)
        return result

    def _predict(self, params: Params, stop: Stop | None):
        """What `evaluate` asks of a model: this process's rows of a batch's answers."""
        agreed = hosts.Agreement(self.model.mesh)

        def predict(batch: Batch) -> Answers:
            if agreed(stop.request if stop is not None else hosts.GO_ON) == hosts.ASKED:
                raise Stopped
            said = self.model.predict(params, steps.place_batch(batch, self.model.mesh))
            parts = (said.logits, said.presence, said.predicted_iou)
            return Answers(*(None if part is None else hosts.OwnRows(part) for part in parts))

        return predict

    def all(
        self, params: Params, *, about: About | None, stop: Stop | None = None
    ) -> dict[str, dict[str, Any]]:
        """Score every split; print the table, write the files, return the headlines."""
        results: dict[str, dict[str, Scores]] = {}
        headlines: dict[str, dict[str, Any]] = {}
        for split in self.splits:
            result = self.split(params, split, about=about, stop=stop)
            results[split.key] = result.scores
            headlines |= report.headlines(split.dataset, split.name, result.scores)
        if hosts.is_primary():
            print(report.table(results))
        return headlines


def score(config: configs.Config, workdir: Path, *, model_dir: Path | None) -> None:
    """Score a model directory, or the best checkpoint of `workdir`, on every evaluation split."""
    trained.expect(workdir, model_dir)
    with held(workdir, purpose="scoring", inside=("eval", "predictions")):
        datasets = Datasets.of(config.data, size=config.model.image_size)
        datasets.check()
        found = trained.load(config, workdir, model_dir=model_dir)
        scorer = Scorer.of(config, workdir, model=found.model, datasets=datasets)
        scorer.all(found.params, about=found.about)
