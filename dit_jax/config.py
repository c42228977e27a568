"""A run as data: frozen dataclasses, built once from a config file by a strict `from_dict`.

Every value is explicit: nothing has a default here, recipes live in `configs/`. An unknown key, a
missing key or a value of another type is an error that names the key and what was expected.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from dit_jax import variants
from dit_jax.data import mix
from dit_jax.data.entries import CHOICES
from dit_jax.eval.protocols import CLICKS, PROTOCOLS
from dit_jax.models.architecture import Architecture, Bert, Injection
from dit_jax.ops import rematerialise
from dit_jax.strict import build, flatten, one_of

SCHEDULES = ("cosine", "steps")
ENCODERS = ("image_encoder", "text_encoder")
TASKS = ("text", "text+clicks", "prompts")
WRITERS = ("tensorboard", "wandb")
AFTER_TEXT = ("click1", "click3", "click5")

Range = tuple[str, Callable[[Any], bool], tuple[str, ...]]  # in words, as a test, of which keys
RANGES: tuple[Range, ...] = (
    (
        "a number above 0",
        lambda x: x > 0,
        (
            *("optim.lr", "optim.eps", "optim.batch_size", "optim.accumulate", "eval.batch_size"),
            *("checkpoint.keep_latest", "train.log_every", "train.max_nonfinite"),
            *("data.ahead_gb", "mesh.slices"),
        ),
    ),
    (
        "0 or more",
        lambda x: x >= 0,
        (
            *("data.train_limit", "data.eval_limit", "data.augmentation.jitter"),
            *("optim.warmup_epochs", "optim.epochs", "optim.max_steps", "optim.clip"),
            *("optim.warmup_lr", "optim.min_lr", "optim.decay", "optim.rounds"),
            *("optim.presence_weight", "optim.iou_weight"),
            *("eval.every_epochs", "eval.every_steps", "checkpoint.every_steps"),
            *("train.minutes", "train.pictures", "eval.bootstrap", "probe.limit"),
        ),
    ),
    ("-1 or more", lambda x: x >= -1, ("data.workers",)),
    (
        "numbers from 0 on",
        lambda xs: all(x >= 0 for x in xs),
        ("optim.milestones",),
    ),
    ("from 0 to below 2³²", lambda x: 0 <= x < 2**32, ("seed", "probe.seed", "data.shapes.seed")),
    ("from 0 to below 1", lambda x: 0 <= x < 1, ("optim.ema", "data.shapes.absent")),
    (
        "two numbers from 0 to below 1",
        lambda xs: len(xs) == 2 and all(0 <= x < 1 for x in xs),
        ("optim.betas",),
    ),
    ("between 0 and 1", lambda x: 0 < x < 1, ("eval.threshold", "eval.false_alarm")),
    ("between 0 and 1", lambda x: x is None or 0 < x < 1, ("eval.presence_threshold",)),
    (
        "from 0 to 1",
        lambda x: 0 <= x <= 1,
        ("optim.click_share", *(f"data.augmentation.{p}_p" for p in ("jitter", "blur", "flip"))),
    ),
)


@dataclasses.dataclass(frozen=True)
class Init:
    """Where the weights come from; "" means fresh ones. Each may be a name on the hub, hf://…."""

    model: str  # model directory to start from
    sam: str  # Meta's SAM checkpoint
    bert: str  # BERT checkpoint: file, or folder that holds it


@dataclasses.dataclass(frozen=True)
class Model:
    """A row of `variants.VARIANTS`; None keeps what the row says."""

    task: str  # what it learns to answer: "text"; "text+clicks", corrected; or "prompts", SAM's own
    variant: str
    backbone: str | None
    injection: str | None
    decoder_depth: int | None
    text_encoder: str | None  # a row of `variants.TEXT_ENCODERS`, or a BERT: its config decides
    freeze: tuple[str, ...] | None  # of "image_encoder", "text_encoder"
    inject_from: int  # the first block that text enters; 0 = the paper
    text_layer: int
    text_tokens: int
    presence: bool  # also learn to say that nothing is meant: gRefCOCO and the like
    image_size: int
    mask_padding: bool
    dtype: str
    products: str | None  # of activations and weights, whatever `dtype` is: "bfloat16", "fp8"
    dropout: bool  # the paper's 0.1 in BERT and after the projections
    remat: str  # what the backward pass recomputes: see `dit_jax.ops.rematerialise`
    init: Init
    vocab_size: int | None  # word pieces the text encoder has rows for; None keeps the row's
    vocab: str  # "" takes the model directory's, BERT's, or the embedded one for shapes


@dataclasses.dataclass(frozen=True)
class Augment:
    """How training pictures are varied; see `dit_jax.data.pixels.transforms.Augmentation`."""

    scales: bool  # long side drawn from 320 … 512 (of 512), else always full
    jitter: float
    jitter_p: float
    blur_p: float
    flip_p: float


@dataclasses.dataclass(frozen=True)
class ShapesData:
    """Size of the embedded data set, in referents of two expressions each."""

    length: int  # of the training split
    eval_length: int  # of every other split
    absent: float  # share of referents whose expressions fit nothing in the picture
    seed: int


@dataclasses.dataclass(frozen=True)
class Data:
    """What is trained on and scored; `dataset` is written as `dit_jax.data.mix` says."""

    dataset: str  # e.g. "refcoco", "refcoco(unc)+refcoco+(unc)+refcocog(umd)", "folder(my_photos)"
    split_by: str  # "unc", "google", "umd": of the data sets that name none; "" for shapes, folder
    source: str  # REFER folder with annotations; or the own folder, where "folder" names none
    images: str  # COCO's pictures, folder or zip file; "" looks for them inside `source`
    cache_dir: str  # where array records are built, once
    local_cache: str  # where a host keeps copies of records in a bucket; "" in the user's cache
    crowds: str  # objects that COCO marks as iscrowd: "keep" them in a mask, or "drop"
    units: str  # of polygons and boxes in own folders: "pixel" or "fraction"
    orientation: str  # own annotations are drawn "upright", as viewers show them, or as "stored"
    captions: str  # of own annotations: "needed", or "optional" where only masks are learned
    weights: tuple[float, ...]  # how often each data set of a mix is seen; () = once an epoch
    leaks: str  # training pictures that are also in a val or test split: "drop" or "keep"
    on_error: str  # a broken record while training: "stop" or "skip" (counted and logged)
    train_split: str
    train_limit: int  # referents of it that are trained on; 0 = all
    eval_splits: tuple[
        str, ...
    ]  # "val" or, in a mix, "refcoco(unc)/val"; training scores the first
    eval_limit: int  # expressions of a split that are scored; 0 = all
    augmentation: Augment
    workers: int  # processes that prepare batches; 0 = threads; -1 = by the host's cores
    ahead_gb: float  # memory of a host for batches that are made ahead, in 10^9 bytes
    cache_features: str  # folder for what a frozen encoder makes of pictures before text; "" none
    shapes: ShapesData

    def ahead_bytes(self) -> int:
        return int(self.ahead_gb * 1e9)


@dataclasses.dataclass(frozen=True)
class Optim:
    """The optimizer, its schedule and length. Epochs count from 0; see `dit_jax.train.optim`."""

    name: str  # "adam", or "muon": see `dit_jax.train.optim.direction`
    lr: float
    betas: tuple[float, ...]
    eps: float
    schedule: str  # "cosine" (released code) or "steps" (paper)
    warmup_epochs: float
    warmup_lr: float
    min_lr: float
    epochs: float
    milestones: tuple[float, ...]  # epochs at which "steps" multiplies the rate by `decay`
    decay: float
    clip: float  # global norm; 0 = off
    ema: float  # largest decay of the moving average; 0 = off
    presence_weight: float  # of the loss on "is anything meant?", where the model says it
    iou_weight: float  # of SAM's loss on the predicted IoU; 0 = not trained, as in DIT
    rounds: int  # points that correct an answer, one after another, where `model.task` has clicks
    click_share: float  # of the steps of "text+clicks", that have clicks
    batch_size: int  # of one optimiser step, on all devices together
    accumulate: int  # micro-batches a step
    max_steps: int  # length in steps, 0 = of `epochs`; warm-up and milestones stay in epochs


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices along each axis; data = -1 takes all that are left."""

    data: int  # of all slices together
    fsdp: int
    tensor: int
    slices: int  # groups of devices between which there is only a data center's network


@dataclasses.dataclass(frozen=True)
class Eval:
    protocols: tuple[str, ...]
    best: str  # the protocol whose oIoU on the first split decides which checkpoint is best
    batch_size: int
    threshold: float  # on the probability of a pixel, in the protocols that leave it open
    # On the probability that anything is meant (protocol "gres"); None: what the model's directory
    # was calibrated to, else 0.5.
    presence_threshold: float | None
    false_alarm: float  # mean share of a picture's absent expressions with a mask: `calibrate`
    bootstrap: int  # resamples of the pictures for the 95 % intervals; 0 = no intervals
    predictions: bool  # also write every text's mask to <workdir>/predictions/*.jsonl
    every_epochs: float  # 0 = not by epochs
    every_steps: int  # 0 = not by steps; else it wins over `every_epochs`


@dataclasses.dataclass(frozen=True)
class Probe:
    """`--mode=probe`; see `dit_jax.eval.probe.run`."""

    limit: int  # expressions of a split that are probed, spread evenly over it; 0 = all
    seed: int  # of which words are shuffled and dropped


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    every_steps: int  # 0 = only after evaluations and at the end
    keep_latest: int
    asynchronous: bool


@dataclasses.dataclass(frozen=True)
class Train:
    minutes: float  # stop cleanly after this much wall-clock time; 0 = no limit
    log_every: int
    max_nonfinite: int  # steps in a row without a finite loss and gradient that end the run
    pictures: int  # predictions drawn at each evaluation
    writers: tuple[str, ...]  # of curves, beside metrics.jsonl: of WRITERS


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    seed: int  # of first weights, order of the data, augmentation, dropout
    profile_steps: str  # "10:13" traces steps 10, 11 and 12; "" none
    compile_cache: str  # where compiled programs are kept; "" in the workdir, "off" nowhere
    model: Model
    data: Data
    optim: Optim
    mesh: Mesh
    eval: Eval
    probe: Probe
    checkpoint: Checkpoint
    train: Train

    def __post_init__(self):
        row = variants.VARIANTS
        one_of("model.variant", self.model.variant, tuple(row))
        one_of("model.task", self.model.task, TASKS)
        one_of("model.backbone", self.model.backbone, (None, *variants.BACKBONES))
        one_of("model.remat", self.model.remat, rematerialise.POLICIES)
        if self.model.task == "prompts" and self.model.remat == rematerialise.SCAN:
            raise ValueError(
                f"model.remat is {self.model.remat}, whose blocks are alike; expected another"
                " policy with model.task=prompts, whose encoder has windows in some."
            )
        one_of("model.injection", self.model.injection, (None, *map(str, Injection)))
        for encoder in self.model.freeze or ():
            one_of("model.freeze", encoder, ENCODERS)
        one_of("optim.name", self.optim.name, ("adam", "muon"))
        one_of("optim.schedule", self.optim.schedule, SCHEDULES)
        self.profiled()
        self._check_data()
        if not self.eval.protocols:
            raise ValueError(f"eval.protocols is empty; expected some of {', '.join(PROTOCOLS)}.")
        ways = tuple(CLICKS) if self.model.task == "prompts" else tuple(PROTOCOLS)
        if self.model.task == "text+clicks":
            ways += AFTER_TEXT
        for protocol in self.eval.protocols:
            one_of("eval.protocols", protocol, ways)
        for writer in self.train.writers:
            one_of("train.writers", writer, WRITERS)
        one_of("eval.best", self.eval.best, self.eval.protocols)
        if self.eval.predictions and set(self.eval.protocols) <= set(CLICKS):
            raise ValueError(
                "eval.predictions writes answers to texts, and eval.protocols has only points and"
                " boxes; expected eval.predictions=false, or a protocol of texts."
            )
        self._check_numbers()

    def _check_data(self) -> None:
        data = self.data
        one_of("data.leaks", data.leaks, ("drop", "keep"))
        one_of("data.on_error", data.on_error, ("stop", "skip"))
        for key, choices in CHOICES.items():
            one_of(f"data.{key}", getattr(data, key), choices)
        if not data.eval_splits:
            raise ValueError("data.eval_splits is empty; expected at least one split.")
        defaults = dict(split_by=data.split_by, source=data.source)
        parts = mix.parse(data.dataset, **defaults)
        for split in data.eval_splits:
            mix.parse_split(split, parts, **defaults)
            if data.eval_splits.count(split) > 1:
                raise ValueError(f"data.eval_splits names {split} twice; expected it once.")
        if data.weights and len(data.weights) != len(parts):
            raise ValueError(
                f"data.weights has {len(data.weights)} numbers; expected one for each of"
                f" {', '.join(map(str, parts))}, or none."
            )
        if not all(weight > 0 for weight in data.weights):
            raise ValueError(f"data.weights is {data.weights}; expected numbers above 0.")

    def _check_numbers(self) -> None:
        optim, flat = self.optim, flatten(self)
        for expected, holds, paths in RANGES:
            for path in paths:
                if not holds(flat[path]):
                    raise ValueError(f"{path} is {flat[path]}; expected {expected}.")
        for path, value in flat.items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(x, float) and not math.isfinite(x) for x in numbers):
                raise ValueError(f"{path} is {value}; expected a finite number.")
        if not optim.epochs and not optim.max_steps:
            raise ValueError("optim.epochs and optim.max_steps are 0; expected a length.")
        if self.model.task == "text+clicks" and not optim.rounds:
            raise ValueError(
                "optim.rounds is 0; expected a number above 0 with model.task=text+clicks."
            )
        if optim.batch_size % optim.accumulate:
            raise ValueError(
                f"optim.batch_size is {optim.batch_size}; expected a multiple of"
                f" optim.accumulate, {optim.accumulate}."
            )

    @staticmethod
    def from_dict(values: Mapping[str, Any] | ConfigDict) -> "Config":
        """From a dict or ConfigDict of sections; raises ValueError as described above."""
        plain = values.to_dict() if isinstance(values, ConfigDict) else values
        return build(Config, plain, "")

    def profiled(self) -> range:
        """The steps, counted from 1, that `profile_steps` says; raises ValueError."""
        found = re.fullmatch(r"(\d+):(\d+)", self.profile_steps)
        steps = range(*map(int, found.groups())) if found else range(0)
        if self.profile_steps and not (steps and steps.start > 0):
            raise ValueError(
                f"profile_steps is {self.profile_steps!r}; expected FIRST:END with"
                " 1 ≤ FIRST < END, e.g. 10:13."
            )
        return steps

    def variant(self) -> variants.Variant:
        """The row with this run's overrides."""
        model = self.model
        names = ("backbone", "injection", "decoder_depth", "freeze")
        changes = {name: getattr(model, name) for name in names}
        changes = {name: value for name, value in changes.items() if value is not None}
        if "injection" in changes:
            changes["injection"] = Injection(changes["injection"])
        return dataclasses.replace(variants.VARIANTS[model.variant], **changes)

    def architecture(self) -> Architecture:
        """The model that this run trains."""
        names = ("inject_from", "text_layer", "text_tokens", "presence", "image_size")
        names += ("mask_padding", "dtype", "products")
        settings = {name: getattr(self.model, name) for name in names}
        settings["iou_trained"] = self.optim.iou_weight > 0
        if self.model.text_encoder is not None:
            settings["bert"] = _text_encoder(self.model.text_encoder)
        if self.model.task == "prompts":
            settings |= dict(bert=None, injection=Injection.NONE, presence=False, windowed=True)
            settings["inject_from"] = 0
            settings["iou_trained"] = True
        arch = variants.architecture(self.variant(), **settings)
        if self.model.vocab_size is None or arch.bert is None:
            return arch
        bert = dataclasses.replace(arch.bert, vocab=self.model.vocab_size)
        return dataclasses.replace(arch, bert=bert)

    def freeze(self) -> tuple[str, ...]:
        """Encoders whose pre-trained weights stay as they are."""
        return self.variant().freeze


def _text_encoder(named: str) -> Bert:
    """The size of a row, or of a BERT: a file, a folder, or a name on the hub."""
    if named in variants.TEXT_ENCODERS:
        return variants.TEXT_ENCODERS[named]
    from dit_jax.convert import sources  # knows other people's files, which few configs name

    try:
        return sources.text_encoder(named)
    except FileNotFoundError as error:
        raise ValueError(
            f"model.text_encoder is {named!r}; expected one of {', '.join(variants.TEXT_ENCODERS)},"
            f" or a BERT's folder: {error}"
        ) from error
