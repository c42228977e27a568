"""What operations and models take: JAX's arrays inside `jit`, NumPy's from whoever calls them."""

import jax
import numpy as np

Array = jax.Array | np.ndarray
