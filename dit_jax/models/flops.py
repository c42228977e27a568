"""Arithmetic of a model, counted from its shapes, and the share of a device's peak that it is.

A product of (m, k) and (k, n) is 2·m·k·n operations. Norms, softmax and resizing are left out:
below 1 % together. Recomputed blocks (`model.remat`) are not counted: MFU (Chowdhery et al. 2022)
asks what share of the peak went into the model, not how busy the device was.
"""

from dit_jax.models.architecture import PATCH, Architecture, Injection, Vit
from dit_jax.models.injection import FFN_WIDTH, MHA_WIDTH

TRAINING = 3  # forward, and a backward pass by inputs and by parameters
PROMPTS = 5  # tokens of the mask decoder before the text: IoU and four masks

# Dense bfloat16 peak of one device in TFLOP/s, by how its `device_kind` starts. A TPU v2-v4 chip
# is one device since megacore; sources: Google's TPU system architecture pages, NVIDIA data sheets.
PEAK_BF16 = (
    ("TPU v4", 275),
    ("TPU v5 lite", 197),
    ("TPU v5e", 197),
    ("TPU v5p", 459),
    ("TPU v5", 459),
    ("TPU v6 lite", 918),
    ("TPU v6e", 918),
    ("NVIDIA A100", 312),
    ("NVIDIA H100 PCIe", 756),
    ("NVIDIA H100 NVL", 835),
    ("NVIDIA H100", 989),
    ("NVIDIA H200", 989),
)


def peak(device_kind: str) -> float | None:
    """Operations a second that a device of this kind can do in bfloat16; None where unknown."""
    for start, tera in PEAK_BF16:
        if device_kind.startswith(start):
            return tera * 1e12
    return None


def mfu(
    images_per_s: float,
    arch: Architecture,
    *,
    device_kind: str,
    devices: int,
    freeze: tuple[str, ...] = (),
) -> float | None:
    """Share of the devices' peak that training at this rate uses; None where no peak is known."""
    best = peak(device_kind)
    work = training(arch, freeze=freeze)
    return None if best is None else images_per_s * work / (best * devices)


def training(arch: Architecture, *, freeze: tuple[str, ...] = ()) -> float:
    """Operations of one image in a training step: backward by inputs, and by parameters.

    A frozen encoder has no gradients by parameters, and none at all where nothing trainable lies
    before it.
    """
    injected = arch.injection != Injection.NONE
    passes = dict.fromkeys(parts(arch), TRAINING)
    if "text_encoder" in freeze:
        passes["text_encoder"] = 1
    if "image_encoder" in freeze:
        passes |= {"patch_embed": 1, "blocks": 2 if injected else 1, "neck": 2 if injected else 1}
    return sum(passes[name] * work for name, work in parts(arch).items())


def forward(arch: Architecture) -> float:
    """Operations of one (image, expression) pair."""
    return sum(parts(arch).values())


def parts(arch: Architecture) -> dict[str, float]:
    """Operations of one pair, by component."""
    return {
        "text_encoder": text_encoder(arch),
        "patch_embed": product(patches(arch), 3 * PATCH**2, arch.vit.width),
        "injector": injector(arch),
        "blocks": sum(block(arch, layer) for layer in range(arch.vit.depth)),
        "neck": neck(arch),
        "mask_decoder": mask_decoder(arch),
    }


def product(m: int, k: int, n: int) -> float:
    return 2.0 * m * k * n


def patches(arch: Architecture) -> int:
    return (arch.image_size // PATCH) ** 2


def block(arch: Architecture, layer: int) -> float:
    """Projections, attention with relative positions, and MLP of one encoder block."""
    d, n = arch.vit.width, patches(arch)
    injects = arch.injection != Injection.NONE and layer >= arch.inject_from
    carried = arch.text_tokens if injects and carries(arch) and layer + 1 < arch.vit.depth else 0
    read = arch.text_tokens if injects else 0
    linear = product(n + carried, d, 12 * d)  # qkv 3, projection 1, MLP 4 + 4
    linear += product(read - carried, d, 2 * d)  # keys and values of text that is only read
    windowed = arch.windowed and layer not in arch.vit.global_blocks
    return linear + (windows(arch) if windowed else attention(arch.vit, n, carried, read))


def carries(arch: Architecture) -> bool:
    """Whether text rows go through the blocks."""
    only_read = (
        Injection.NONE,
        Injection.LAYER_WISE,
        Injection.LAYER_WISE_STATIC,
        Injection.CROSS_ATTENTION_FFN,
    )
    return arch.injection not in only_read


def attention(vit: Vit, n: int, carried: int, read: int) -> float:
    """Scores, weighted values, and q·R of the relative positions, for all heads."""
    side = round(n**0.5)
    return 2 * product(n + carried, vit.width, n + read) + product(n, vit.width, 2 * side)


def windows(arch: Architecture) -> float:
    """Attention inside Meta's windows, and the padding's projections."""
    vit, side = arch.vit, arch.image_size // PATCH
    count = (-(-side // vit.window)) ** 2
    padded = count * vit.window**2
    extra = product(padded - side**2, vit.width, 4 * vit.width)
    return extra + count * attention(vit, vit.window**2, 0, 0)


def injector(arch: Architecture) -> float:
    """Projections P and, where the row has them, cross-attentions."""
    vit, l, n = arch.vit, arch.text_tokens, patches(arch)  # noqa: E741
    depth = vit.depth - arch.inject_from
    d = vit.width
    project = product(l, arch.bert.width, d) if arch.text_projection else 0.0
    one = product(l, d, d)
    cross = 2 * product(l, d, MHA_WIDTH)  # queries, and the way back
    text = cross + 2 * product(l, d, MHA_WIDTH) + 2 * product(l, MHA_WIDTH, l)
    image = cross + 2 * product(n, d, MHA_WIDTH) + 2 * product(l, MHA_WIDTH, n)
    feed = 2 * product(l, d, FFN_WIDTH)
    rows = {
        Injection.NONE: 0.0,
        Injection.E2E: depth * one,
        Injection.E2E_CARRIED: one,
        Injection.E2E_STATIC: one,
        Injection.LAYER_WISE: depth * one,
        Injection.LAYER_WISE_STATIC: 0.0,
        Injection.CROSS_ATTENTION: depth * one + (depth - 1) * text,
        Injection.CROSS_ATTENTION_FFN: depth * (image + feed),
    }
    return project + rows[arch.injection]


def neck(arch: Architecture) -> float:
    n, c = patches(arch), arch.decoder_width
    return product(n, arch.vit.width, c) + product(n, 9 * c, c)


def text_encoder(arch: Architecture) -> float:
    """BERT's layers up to the one that is read, and the projection to the decoder."""
    if arch.bert is None:
        return 0.0
    l, t, mlp = arch.text_tokens, arch.bert.width, arch.bert.mlp_width  # noqa: E741
    layer = product(l, t, 4 * t + 2 * mlp) + 2 * product(l, t, l)
    return arch.text_layer * layer + product(l, t, arch.decoder_width)


def mask_decoder(arch: Architecture) -> float:
    """Two-way transformer, upscaling and the product with the first hyper-network's output."""
    n, c, inner = patches(arch), arch.decoder_width, arch.decoder_width // 2
    t = PROMPTS + (arch.text_tokens if arch.bert is not None else 0)
    itself = product(t, c, 4 * c) + 2 * product(t, c, t)
    cross = 2 * product(t, c, inner) + 2 * product(n, c, inner) + 2 * product(t, inner, n)
    layer = itself + 2 * cross + 2 * product(t, c, arch.decoder_mlp_width)
    upscale = product(n, c, c) + product(4 * n, c // 4, c // 2)
    masks = product(16 * n, c // 8, 1)
    return arch.decoder_depth * layer + cross + upscale + masks
