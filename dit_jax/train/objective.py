"""What a step minimises, by `model.task`: the answers to texts, to clicks after them, or to SAM's
own prompts."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from dit_jax import config as configs
from dit_jax.eval.protocols import THRESHOLD, logit
from dit_jax.models.dit_sam import DitSam, Prediction
from dit_jax.ops.pixels import inside
from dit_jax.train.interactive import Answering, Metrics, click_losses, prompt_losses

# images f32 [b,S,S,3], or what the encoder made of them `before` text [b,h,w,d]; content [b,4],
# input_ids, attention_mask [b,l], target [b,S,S], present bool [b]; of a part of a batch also
# objects f32 [], how many it has, by how many a part has on average
Inputs = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """`loss`, which is minimised, and what else is to be known of a step.

    Of texts: the mean binary cross-entropy over all pixels, padding included (released code), also
    where the expression means nothing and every pixel is background. A model with a presence head
    adds `presence_weight` times the cross-entropy of its answers, reported as `presence_loss` with
    `presence_accuracy`, the share that is right at 0.5. Where `iou_weight` is not 0, it is that of
    `iou_loss`. Of clicks: see `interactive`.
    """

    task: str = "text"
    presence_weight: float = 0.0
    iou_weight: float = 0.0
    rounds: int = 0
    click_share: float = 0.0

    @staticmethod
    def of(config: configs.Config) -> "Objective":
        rules = config.optim
        return Objective(
            config.model.task,
            rules.presence_weight,
            rules.iou_weight,
            rules.rounds,
            rules.click_share,
        )

    @property
    def random(self) -> bool:
        """Whether a step draws numbers, whatever dropout does."""
        return self.task != "text"

    def __call__(
        self, model: DitSam, inputs: Inputs, key: Array | None, *, dropout: bool, remat: str
    ) -> Metrics:
        """Args:
        key: of dropout and clicks; None where there is neither.
        """
        if self.task == "prompts":
            answering = Answering(model, model.image_encoder(inputs["images"], remat=remat))
            losses = prompt_losses(answering, inputs["target"], key, rounds=self.rounds)
            return of_part(losses, inputs)
        rngs = nnx.Rngs(dropout=key) if dropout else None  # counts, so made inside the trace
        about = dict(before=inputs.get("before"), remat=remat, rngs=rngs)
        words = inputs["input_ids"], inputs["attention_mask"]
        if self.task == "text":
            return self.of_text(model(inputs.get("images"), *words, **about), inputs)
        embedding, text = model.read(inputs.get("images"), *words, **about)
        text_mask = model.text_mask(inputs["attention_mask"])
        said = model.decode(embedding, text=text, text_mask=text_mask)
        answer = Prediction(
            said.logits[:, 0], said.low_res_logits[:, 0], said.iou[:, 0], said.presence
        )
        metrics = self.of_text(answer, inputs)
        with_text = Answering(model, embedding, text, text_mask)
        clicks = self.of_clicks(with_text, answer, inputs, key)
        return metrics | clicks | {"loss": metrics["loss"] + clicks["click_loss"]}

    def of_text(self, prediction: Prediction, inputs: Inputs) -> Metrics:
        with jax.named_scope("loss"):
            logits = prediction.logits.astype(jnp.float32)
            pixels = optax.sigmoid_binary_cross_entropy(logits, inputs["target"]).mean()
        metrics = {"loss": pixels}
        if prediction.presence is not None:
            # `present`, not the target's pixels: a small object may leave none on a smaller canvas.
            presence, present = prediction.presence, inputs["present"]
            answers = optax.sigmoid_binary_cross_entropy(presence, present.astype(jnp.float32))
            metrics["presence_loss"] = answers.mean()
            metrics["presence_accuracy"] = jnp.mean((presence > 0) == present)
            metrics["loss"] += self.presence_weight * metrics["presence_loss"]
        if self.iou_weight:
            metrics["iou_loss"] = iou_loss(prediction, inputs)
            metrics["loss"] += self.iou_weight * metrics["iou_loss"]
        return metrics

    def of_clicks(
        self, answering: Answering, answer: Prediction, inputs: Inputs, key: Array
    ) -> Metrics:
        """In a share of the steps, which say `clicked`; zeros in the others."""
        often, key = jax.random.split(jax.random.fold_in(key, 1))

        def clicked(_) -> Metrics:
            given = inputs["target"], answer.logits, answer.low_res_logits
            losses = click_losses(answering, *given, key, rounds=self.rounds)
            return of_part(losses, inputs) | {"clicked": jnp.ones(())}

        def unclicked(_) -> Metrics:
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(clicked, 0))

        return jax.lax.cond(jax.random.bernoulli(often, self.click_share), clicked, unclicked, 0)


def of_part(means: Metrics, inputs: Inputs) -> Metrics:
    """Means over objects, weighted so that those of a batch's parts average to the batch's."""
    share = inputs.get("objects")
    return means if share is None else {name: share * mean for name, mean in means.items()}


@jax.named_scope("iou_loss")
def iou_loss(prediction: Prediction, inputs: Inputs) -> Float[Array, ""]:
    """Mean squared difference of the predicted IoU and the one that the mask has (Kirillov et al.
    2023, appendix A).

    The mask is the one that is answered: above THRESHOLD and without the padding. Its IoU is that
    of the protocol `original`, 1 where nothing is meant and nothing found.
    """
    logits = prediction.logits.astype(jnp.float32)
    within = inside(inputs["content"], logits.shape[1])
    found, truth = within & (logits > logit(THRESHOLD)), within & (inputs["target"] > 0.5)
    pixels = dict(axis=(1, 2), dtype=jnp.float32)  # exact: no canvas has more than 2**24
    hit, union = jnp.sum(found & truth, **pixels), jnp.sum(found | truth, **pixels)
    iou = jnp.where(union > 0, hit / jnp.maximum(union, 1), 1.0)
    return jnp.mean((prediction.iou - iou) ** 2)


TEXT = Objective()
