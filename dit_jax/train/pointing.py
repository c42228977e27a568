"""A model that can be pointed at, as compiled functions over a mesh: what `eval.clicks` asks."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from dit_jax.data.pipeline import Batch
from dit_jax.eval import clicks
from dit_jax.eval.clicks import Pointable, Reply
from dit_jax.eval.protocols import logit
from dit_jax.models import params as parameters
from dit_jax.models.mask_decoder import SEVERAL, SINGLE
from dit_jax.models.params import Params
from dit_jax.models.prompting import Answering, Prompts
from dit_jax.ops.mesh import use_mesh
from dit_jax.ops.pixels import normalize
from dit_jax.ops.platform import compiler_options
from dit_jax.train import step as steps
from dit_jax.train.placement import hosts, sharding

PROBABILITY = 0.5  # of a pixel, in SAM's masks


@dataclasses.dataclass(frozen=True)
class Pointing:
    """Compiled once; `of` binds parameters."""

    graph: nnx.GraphDef
    mesh: Mesh
    placement: Params
    text: bool  # clicks correct what a text was answered

    def of(self, params: Params, *, threshold: float) -> Pointable:
        """`threshold` is the probability from which a pixel belongs to a text's answer."""
        share = hosts.share(self.mesh)

        def embed(batch: Batch) -> Any:
            return self.embed(params, steps.place_batch(batch, self.mesh))

        def ask(embedded: Any, prompts: clicks.Prompts, before: Any, several: bool) -> Reply:
            fields = vars(prompts)
            placed = Prompts(**{k: share.place(v, mesh=self.mesh) for k, v in fields.items()})
            return _own(self.ask(params, embedded, placed, before, several=several))

        def read(embedded: Any) -> Reply:
            return _own(self.read(params, embedded))

        level = logit(threshold if self.text else PROBABILITY)
        return Pointable(embed, ask, read if self.text else None, level)

    @functools.cached_property
    def embed(self):
        return self._compiled(self._embed)

    @functools.cached_property
    def ask(self):
        return self._compiled(self._ask, static_argnames="several")

    @functools.cached_property
    def read(self):
        return self._compiled(self._read)

    def _compiled(self, function, **how):
        rows = sharding.batch_sharding(self.mesh)
        return jax.jit(function, **how, out_shardings=rows, compiler_options=compiler_options())

    def _embed(self, params: Params, batch: steps.Batch):
        """Of pictures, and where there are any, of texts with what of them may be attended to."""
        model = parameters.merge(self.graph, params)
        images = normalize(batch["image"], batch["content"])
        with use_mesh(self.mesh):
            if not self.text:
                return model.image_encoder(images), None, None
            words = batch["input_ids"], batch["attention_mask"]
            return *model.read(images, *words), model.text_mask(words[1])

    def _ask(self, params: Params, embedded, prompts: Prompts, before, *, several: bool):
        answering = Answering(parameters.merge(self.graph, params), *embedded)
        shown = None if before is None else jnp.ones(len(before), bool)
        how = dict(before=before, shown=shown, wanted=SEVERAL if several else SINGLE)
        with use_mesh(self.mesh):
            whole, small, iou = answering(prompts, **how)
        chosen = iou.argmax(axis=1)
        small = small[jnp.arange(len(small)), chosen]
        return (whole if several else whole[:, 0]).astype(jnp.float32), chosen, small

    def _read(self, params: Params, embedded):
        embedding, text, text_mask = embedded
        model = parameters.merge(self.graph, params)
        with use_mesh(self.mesh):
            said = model.decode(embedding, text=text, text_mask=text_mask)
        chosen = jnp.zeros(len(embedding), jnp.int32)
        return said.logits[:, 0].astype(jnp.float32), chosen, said.low_res_logits[:, 0]


def _own(reply: tuple) -> Reply:
    logits, chosen, small = reply
    return Reply(hosts.OwnRows(logits), hosts.OwnRows(chosen), small)
