"""L-DIT in PyTorch, stated once more from the paper for benchmarks: what a careful user writes.

The same arithmetic as `dit_jax` (text enters as keys and values only), the same parameters
(`from_jax`), and three ways of attending: "explicit" materialises scores and bias as SAM's released
code does, "fused" hands the bias to `scaled_dot_product_attention`, "folded" hides it in channels.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_jax.convert import layout
from dit_jax.models import params as parameters
from dit_jax.models.architecture import PATCH, Architecture


def explicit(q: Tensor, k: Tensor, v: Tensor, rel: tuple[Tensor, Tensor] | None = None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if rel is not None:
        scores = scores + bias(*rel, keys=k.shape[-2])
    return scores.softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, rel: tuple[Tensor, Tensor] | None = None) -> Tensor:
    mask = None if rel is None else bias(*rel, keys=k.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def bias(rel_h: Tensor, rel_w: Tensor, *, keys: int) -> Tensor:
    """[b, k, n, keys]: nothing on the text, which comes first."""
    image = (rel_h[..., :, None] + rel_w[..., None, :]).flatten(-2)
    return F.pad(image, (keys - image.shape[-1], 0))


def folded(q: Tensor, k: Tensor, v: Tensor, rel: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The bias as further channels of queries and keys, for fused kernels that know no bias."""
    if rel is None:
        return F.scaled_dot_product_attention(q, k, v)
    (h, w), c, text = (x.shape[-1] for x in rel), q.shape[-1], k.shape[-2] - q.shape[-2]
    place = torch.arange(h * w, device=q.device)
    row, column = F.one_hot(place // w, h), F.one_hot(place % w, w)
    offered = F.pad(torch.cat([row, column], -1).to(k.dtype), (0, 0, text, 0))
    asked = torch.cat([q * c**-0.5, *(x.to(q.dtype) for x in rel)], -1)
    keys = torch.cat([k, offered.expand(*k.shape[:2], -1, -1)], -1)
    out = F.scaled_dot_product_attention(asked, keys, F.pad(v, (0, h + w)), scale=1.0)
    return out[..., :c]


ATTENTIONS: dict[str, Callable[..., Tensor]] = {
    "explicit": explicit,
    "fused": fused,
    "folded": folded,
}


class Norm2d(nn.LayerNorm):
    """LayerNorm over the channels of [b, c, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.activation(self.lin1(x)))


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """SAM's, with text in front of the image's keys and values."""

    def __init__(self, width: int, heads: int, rows: int, attend: Callable[..., Tensor]):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(rows, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(rows, width // heads))
        self.heads, self.attend = heads, attend

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        b, h, w, d = x.shape
        q, k, v = (heads_of(y, self.heads) for y in self.qkv(x.view(b, h * w, d)).chunk(3, -1))
        read = F.linear(text, self.qkv.weight[d:], self.qkv.bias[d:]).chunk(2, -1)
        tk, tv = (heads_of(y, self.heads) for y in read)
        rel = self.relative(q, h, w)
        y = self.attend(q, torch.cat([tk, k], 2), torch.cat([tv, v], 2), rel)
        return self.proj(y.transpose(1, 2).reshape(b, h, w, d))

    def relative(self, q: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        grid = q.unflatten(2, (h, w))
        rel_h = torch.einsum("bkhwc,hic->bkhwi", grid, table(self.rel_pos_h, h))
        rel_w = torch.einsum("bkhwc,wjc->bkhwj", grid, table(self.rel_pos_w, w))
        return rel_h.flatten(2, 3), rel_w.flatten(2, 3)


def table(rows: Tensor, side: int) -> Tensor:
    """[side, side, c]: the published rows, resized where the grid has another side."""
    if rows.shape[0] != 2 * side - 1:
        rows = F.interpolate(rows.T[None], size=2 * side - 1, mode="linear")[0].T
    place = torch.arange(side)
    return rows[place[:, None] - place[None, :] + side - 1]


class Block(nn.Module):
    def __init__(self, arch: Architecture, index: int, attend: Callable[..., Tensor]):
        super().__init__()
        vit = arch.vit
        self.norm1 = nn.LayerNorm(vit.width, eps=1e-6)
        self.attn = Attention(vit.width, vit.heads, vit.table_rows(index), attend)
        self.norm2 = nn.LayerNorm(vit.width, eps=1e-6)
        self.mlp = Mlp(vit.width, 4 * vit.width, F.gelu)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), self.norm1(text))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)


class VisualEncoder(nn.Module):
    def __init__(self, arch: Architecture, attend: Callable[..., Tensor]):
        super().__init__()
        vit = arch.vit
        self.patch_embed = Patches(vit.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, vit.grid, vit.grid, vit.width))
        if arch.text_projection:
            self.prob_text = nn.Linear(arch.bert.width, vit.width)
        self.probs = nn.ModuleList(nn.Linear(vit.width, vit.width) for _ in range(vit.depth))
        self.blocks = nn.ModuleList(Block(arch, i, attend) for i in range(vit.depth))
        self.neck = nn.Sequential(
            nn.Conv2d(vit.width, arch.decoder_width, 1, bias=False),
            Norm2d(arch.decoder_width, eps=1e-6),
            nn.Conv2d(arch.decoder_width, arch.decoder_width, 3, padding=1, bias=False),
            Norm2d(arch.decoder_width, eps=1e-6),
        )

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        x = self.patch_embed.proj(images).permute(0, 2, 3, 1)
        positions = self.pos_embed.permute(0, 3, 1, 2)
        if positions.shape[-2:] != x.shape[1:3]:
            positions = F.interpolate(positions, size=x.shape[1:3], mode="bicubic")
        x = x + positions.permute(0, 2, 3, 1)
        text = self.prob_text(text) if hasattr(self, "prob_text") else text
        for project, block in zip(self.probs, self.blocks, strict=True):
            x = block(x, project(text))
        return self.neck(x.permute(0, 3, 1, 2))


class Bert(nn.Module):
    """The embeddings and the first layers, under Hugging Face's names."""

    def __init__(self, arch: Architecture):
        super().__init__()
        bert = arch.bert
        self.embeddings = nn.ModuleDict(
            dict(
                word_embeddings=nn.Embedding(bert.vocab, bert.width, padding_idx=0),
                position_embeddings=nn.Embedding(bert.positions, bert.width),
                token_type_embeddings=nn.Embedding(bert.types, bert.width),
                LayerNorm=nn.LayerNorm(bert.width, eps=1e-12),
            )
        )
        layers = nn.ModuleList(bert_layer(bert.width, bert.mlp_width) for _ in range(bert.depth))
        self.encoder = nn.ModuleDict(dict(layer=layers))
        self.heads, self.read = bert.heads, arch.text_layer

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        parts = self.embeddings
        positions = parts["position_embeddings"].weight[: ids.shape[1]]
        x = parts["word_embeddings"](ids) + positions
        x = parts["LayerNorm"](x + parts["token_type_embeddings"].weight[0])
        hidden = torch.where(mask.bool(), 0.0, torch.finfo(x.dtype).min)[:, None, None]
        for layer in self.encoder["layer"][: self.read]:
            inner, out = layer["attention"]["self"], layer["attention"]["output"]
            q, k, v = (heads_of(inner[n](x), self.heads) for n in ("query", "key", "value"))
            scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + hidden
            y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            x = out["LayerNorm"](x + out["dense"](y))
            y = layer["output"]["dense"](F.gelu(layer["intermediate"]["dense"](x)))
            x = layer["output"]["LayerNorm"](x + y)
        return x


def bert_layer(width: int, hidden: int) -> nn.ModuleDict:
    def output(n: int) -> nn.ModuleDict:
        return nn.ModuleDict(
            dict(dense=nn.Linear(n, width), LayerNorm=nn.LayerNorm(width, eps=1e-12))
        )

    own = nn.ModuleDict({n: nn.Linear(width, width) for n in ("query", "key", "value")})
    attention = nn.ModuleDict({"self": own, "output": output(width)})
    middle = nn.ModuleDict(dict(dense=nn.Linear(width, hidden)))
    return nn.ModuleDict(dict(attention=attention, intermediate=middle, output=output(hidden)))


class Cross(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, attend: Callable[..., Tensor]):
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(width, inner), nn.Linear(width, inner)
        self.v_proj, self.out_proj = nn.Linear(width, inner), nn.Linear(inner, width)
        self.heads, self.attend = heads, attend

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
        y = self.attend(*(heads_of(x, self.heads) for x in (q, k, v)))
        return self.out_proj(y.transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    def __init__(self, width: int, hidden: int, attend: Callable[..., Tensor]):
        super().__init__()
        heads = width // 32
        self.self_attn = Cross(width, width, heads, attend)
        self.cross_attn_token_to_image = Cross(width, width // 2, heads, attend)
        self.cross_attn_image_to_token = Cross(width, width // 2, heads, attend)
        self.mlp = Mlp(width, hidden, F.relu)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, own: Tensor, places: Tensor, first: bool):
        q = tokens if first else tokens + own
        attended = self.self_attn(q, q, tokens)
        tokens = self.norm1(attended if first else tokens + attended)
        attended = self.cross_attn_token_to_image(tokens + own, image + places, image)
        tokens = self.norm2(tokens + attended)
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token(image + places, tokens + own, tokens)
        return tokens, self.norm4(image + attended)


class Transformer(nn.Module):
    def __init__(self, arch: Architecture, attend: Callable[..., Tensor]):
        super().__init__()
        width = arch.decoder_width
        make = (width, arch.decoder_mlp_width, attend)
        self.layers = nn.ModuleList(TwoWayBlock(*make) for _ in range(arch.decoder_depth))
        self.final_attn_token_to_image = Cross(width, width // 2, width // 32, attend)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        own = tokens
        for i, layer in enumerate(self.layers):
            tokens, image = layer(tokens, image, own, places, i == 0)
        attended = self.final_attn_token_to_image(tokens + own, image + places, image)
        return self.norm_final_attn(tokens + attended), image


class Three(nn.Module):
    def __init__(self, width: int, out: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, n) for n in (width, width, out))

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class Decoder(nn.Module):
    """SAM's, for one mask from one prompt of text."""

    def __init__(self, arch: Architecture, attend: Callable[..., Tensor]):
        super().__init__()
        width = arch.decoder_width
        self.transformer = Transformer(arch, attend)
        self.iou_token, self.mask_tokens = nn.Embedding(1, width), nn.Embedding(4, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, 2),
            Norm2d(width // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Three(width, width // 8) for _ in range(4))
        self.iou_prediction_head = Three(width, 4)

    def forward(self, image: Tensor, places: Tensor, prompts: Tensor) -> Tensor:
        b, c, h, w = image.shape
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(b, -1, -1), prompts], 1)
        tokens, keys = self.transformer(tokens, image.flatten(2).transpose(1, 2), places)
        upscaled = self.output_upscaling(keys.transpose(1, 2).view(b, c, h, w))
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1])
        return torch.einsum("bc,bchw->bhw", weights, upscaled)


class LDit(nn.Module):
    """Images [b, 3, H, W] and token ids [b, l] to mask logits [b, H, W], without dropout."""

    def __init__(self, arch: Architecture, *, attention: str):
        super().__init__()
        attend = ATTENTIONS[attention]
        self.visual_encoder = VisualEncoder(arch, attend)
        self.lang_encoder = nn.ModuleDict(dict(bert=Bert(arch)))
        self.text_proj = nn.Linear(arch.bert.width, arch.decoder_width)
        self.no_mask = nn.Parameter(torch.zeros(1, arch.decoder_width))
        self.register_buffer("gaussian", torch.zeros(2, arch.decoder_width // 2))
        self.mask_decoder = Decoder(arch, attend)

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        text = self.lang_encoder["bert"](ids, mask)
        image = self.visual_encoder(images, text) + self.no_mask[0, None, :, None, None]
        masks = self.mask_decoder(image, self.places(*image.shape[-2:]), self.text_proj(text))
        size = images.shape[-2:]
        return F.interpolate(masks[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]

    def places(self, h: int, w: int) -> Tensor:
        make = dict(device=self.gaussian.device, dtype=self.gaussian.dtype)
        y, x = ((torch.arange(n, **make) + 0.5) / n for n in (h, w))
        unit = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(1, h * w, 2)
        angles = 2 * math.pi * ((2 * unit - 1) @ self.gaussian)
        return torch.cat([angles.sin(), angles.cos()], -1)

    def load(self, params: parameters.Params) -> "LDit":
        """The parameters of the JAX model; every one that text needs must be there."""
        flat = parameters.flatten(params)
        theirs = {
            layout.torch_name(path): torch.from_numpy(layout.to_torch(path, np.asarray(value)))
            for path, value in flat.items()
        }
        theirs["gaussian"] = theirs["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
        theirs["no_mask"] = theirs["prompt_encoder.no_mask_embed.weight"]
        prompts = {name for name in theirs if name.startswith("prompt_encoder.")}
        self.load_state_dict({k: v for k, v in theirs.items() if k not in prompts}, strict=True)
        return self
