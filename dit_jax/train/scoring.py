"""Scores of a model on a run's evaluation splits: during training, at its end, or alone."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from dit_jax import config as configs
from dit_jax.data.pipeline import Batch
from dit_jax.eval import clicks, report
from dit_jax.eval.evaluate import Evaluation, evaluate
from dit_jax.eval.metrics import Scores
from dit_jax.eval.predictions import Answers
from dit_jax.eval.protocols import CLICKS, PROTOCOLS
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
    def of(
        config: configs.Config,
        workdir: Path,
        *,
        model: Model,
        datasets: Datasets,
        folder: Path | None = None,
    ) -> "Scorer":
        """`folder` is the model's directory, which may have been calibrated."""
        least = trained.presence_threshold(config.eval, folder)
        return Scorer(
            model,
            datasets.splits,
            workdir,
            dataclasses.replace(config.eval, presence_threshold=least),
            limit=config.data.eval_limit,
            pictures=config.train.pictures,
            ahead_bytes=config.data.ahead_bytes(),
        )

    def split(
        self, params: Params, split: Scored, *, about: About | None, stop: Stop | None = None
    ) -> Evaluation:
        """Score one split, and write the scores; raises Stopped where `stop` is asked for."""
        results = []
        protocols = [name for name in self.rules.protocols if name in PROTOCOLS]
        if protocols:
            results.append(self._texts(params, split, protocols, stop))
        ways = [name for name in self.rules.protocols if name in CLICKS]
        if ways:
            results.append(self._clicks(params, split, ways, stop))
        result = joined(results)
        if hosts.is_primary():
            remarks = {"trained_on": about}
            where = (self.workdir, split.dataset, split.name)
            report.write_scores(*where, result.scores, remarks=remarks)
        return result

    def _texts(
        self, params: Params, split: Scored, protocols: list[str], stop: Stop | None
    ) -> Evaluation:
        share, rules = hosts.share(self.model.mesh), self.rules
        lines = self.workdir / "predictions" / f"{split.dataset}-{split.name}.jsonl"
        return evaluate(
            self._predict(params, stop),
            split.open(),
            self.model.tokenizer,
            **self._about(),
            protocols=protocols,
            threshold=rules.threshold,
            presence_threshold=rules.presence_threshold,
            predictions_path=lines if rules.predictions and share.reads else None,
            about={"dataset": split.dataset, "split": split.name},
        )

    def _clicks(
        self, params: Params, split: Scored, ways: list[str], stop: Stop | None
    ) -> Evaluation:
        model, agreed = self.model, hosts.Agreement(self.model.mesh)
        pointable = model.pointing.of(params, threshold=self.rules.threshold)

        def embed(batch: Batch) -> Any:
            if agreed(stop.request if stop is not None else hosts.GO_ON) == hosts.ASKED:
                raise Stopped
            return pointable.embed(batch)

        asked = dataclasses.replace(pointable, embed=embed)
        return clicks.evaluate(asked, split.open(), model.tokenizer, **self._about(), names=ways)

    def _about(self) -> dict[str, Any]:
        """What both kinds of evaluation are told."""
        share, rules = hosts.share(self.model.mesh), self.rules
        several = functools.partial(hosts.gather, readers=share.readers)
        return dict(
            size=self.model.arch.image_size,
            batch_size=rules.batch_size // share.count,
            bootstrap=rules.bootstrap,
            limit=self.limit,
            keep=self.pictures,
            shard_index=share.index,
            shard_count=share.count,
            gather=several if share.count > 1 else None,
            ahead_bytes=self.ahead_bytes,
        )

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


def joined(results: list[Evaluation]) -> Evaluation:
    """One evaluation of all scores; the first one's pictures."""
    scores = {name: row for result in results for name, row in result.scores.items()}
    outcomes = {name: table for result in results for name, table in result.outcomes.items()}
    return Evaluation(scores, results[0].samples, outcomes)


def score(config: configs.Config, workdir: Path, *, model_dir: Path | None) -> None:
    """Score a model directory, or the best checkpoint of `workdir`, on every evaluation split."""
    trained.expect(workdir, model_dir)
    with held(workdir, purpose="scoring", inside=("eval", "predictions")):
        datasets = Datasets.of(config.data, size=config.model.image_size)
        datasets.check()
        found = trained.load(config, workdir, model_dir=model_dir)
        how = dict(model=found.model, datasets=datasets, folder=found.folder)
        scorer = Scorer.of(config, workdir, **how)
        scorer.all(found.params, about=found.about)
