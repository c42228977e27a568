"""From a Source to batches of NumPy arrays, with Grain.

In: any Source, a tokenizer, a seed. Out: `Batch`es, of training without end or of a split once.
Read `streams`, which decides the order, then `items`, one row, then `batches`, which prepares them
ahead, resumably.
"""

from dit_jax.data.pipeline.batches import TrainBatches
from dit_jax.data.pipeline.items import Batch
from dit_jax.data.pipeline.streams import AHEAD, eval_batches, expression_table, train_batches

__all__ = ["AHEAD", "Batch", "TrainBatches", "eval_batches", "expression_table", "train_batches"]
