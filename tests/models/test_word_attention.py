"""Word maps are the probabilities that the model's own attention uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import architecture, random_params

from dit_jax.models import image_encoder, layers
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Injection
from dit_jax.models.word_attention import encoder_maps, word_attention
from dit_jax.ops.attention.dispatch import attend
from dit_jax.ops.attention.maps import attended

LENGTH, SIDE = 12, 4  # text tokens, patches


def probabilities(q, k, *, rel=None, key_mask=None):
    """What `attend` multiplies values with: its answer where the values are the unit vectors."""
    n, c = k.shape[2:]
    units = jnp.pad(jnp.eye(n), ((0, 0), (0, -n % c))).reshape(n, -1, c)
    answers = [
        attend(q, k, jnp.broadcast_to(some[None, None], k.shape), rel=rel, key_mask=key_mask)
        for some in units.swapaxes(0, 1)  # values are as wide as keys
    ]
    return jnp.concatenate(answers, axis=-1)[..., :n].mean(axis=1)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attended_is_what_attend_uses(relative, masked):
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.standard_normal((2, 3, 6, 8)), jnp.float32)
    k = jnp.asarray(rng.standard_normal((2, 3, 6 + 5, 8)), jnp.float32)
    rel, mask = None, None
    if relative:
        parts = (rng.standard_normal((2, 3, 6, side)) for side in (2, 3))
        rel = tuple(jnp.asarray(part, jnp.float32) for part in parts)
    if masked:
        mask = jnp.asarray(rng.random((2, 11)) > 0.4).at[:, -1].set(True)
    found = attended(q, k, keys=slice(6, 11), rel=rel, key_mask=mask)
    expected = probabilities(q, k, rel=rel, key_mask=mask)
    np.testing.assert_allclose(found, expected[..., 6:], atol=1e-6)
    whole = attended(q, k, keys=slice(None), rel=rel, key_mask=mask)
    np.testing.assert_allclose(whole.sum(axis=-1), 1.0, atol=1e-5)


def question(arch, *, words=5):
    rng = np.random.default_rng(1)
    images = rng.standard_normal((1, 64, 64, 3)).astype(np.float32)
    features = rng.standard_normal((1, LENGTH, arch.bert.width)).astype(np.float32)
    mask = (np.arange(LENGTH) < words).astype(np.int32)[None]
    return images, features, mask


def model_of(**changes):
    arch = architecture(**changes)
    params = jax.tree.map(jnp.asarray, random_params(arch))
    return arch, parameters.merge(parameters.structure(arch)[0], params)


@pytest.mark.parametrize(
    "injection", [Injection.LAYER_WISE, Injection.E2E, Injection.CROSS_ATTENTION_FFN]
)
def test_maps_are_of_the_forward_pass(monkeypatch, injection):
    """Every attention of a forward pass is noted; the maps are exactly its text columns."""
    arch, model = model_of(injection=injection, mask_padding=injection == Injection.E2E)
    noted = {"encoder": [], "decoder": []}

    def noting(where):
        def attend_and_note(q, k, v, *, rel=None, key_mask=None):
            noted[where].append((q, k, rel, key_mask))
            return attend(q, k, v, rel=rel, key_mask=key_mask)

        return attend_and_note

    @jax.jit
    def forward(images, features, attention_mask):
        found = word_attention(model, images, features, attention_mask)
        text_mask = model.text_mask(attention_mask)
        _, again = encoder_maps(model.image_encoder, images, features, text_mask=text_mask)
        monkeypatch.setattr(image_encoder, "attend", noting("encoder"))
        monkeypatch.setattr(layers, "attend", noting("decoder"))
        embedding = model.image_encoder(images, features, text_mask=text_mask)
        model.decode(embedding, text=model.text_proj(features), text_mask=text_mask)
        patches = SIDE * SIDE
        encoder = [_probabilities(one)[:, :patches, patches:] for one in noted["encoder"]]
        image_to_token = [one for one in noted["decoder"] if one[0].shape[2] == patches]
        decoder = [_probabilities(one)[..., -LENGTH:] for one in image_to_token]
        return found, (encoder, decoder), (embedding, again)

    found, expected, embeddings = jax.device_get(forward(*question(arch)))
    for maps, seen, count in zip((found.encoder, found.decoder), expected, (2, 1), strict=True):
        assert len(maps) == len(seen) == count
        for layer, probability in zip(maps, seen, strict=True):
            np.testing.assert_allclose(flat(layer), probability, atol=2e-6)
    np.testing.assert_allclose(*embeddings, atol=1e-5)
    if arch.mask_padding:
        assert not found.encoder[:, :, 5:].any()


def test_default_fusion_has_none_in_its_encoder():
    arch, model = model_of(injection=Injection.NONE)
    found = jax.jit(lambda *asked: word_attention(model, *asked))(*question(arch))
    assert found.encoder is None
    assert found.decoder.shape == (1, 1, LENGTH, SIDE, SIDE)


def _probabilities(noted):
    q, k, rel, key_mask = noted
    return probabilities(q, k, rel=rel, key_mask=key_mask)


def flat(layer):
    """[b, l, h, w] as [b, n, l]."""
    return np.asarray(layer).reshape(*layer.shape[:2], -1).swapaxes(1, 2)
