"""The recipe of `saliency-r1 train sft` for the nano policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saliency_r1.training.fine_tuning.recipe import FineTuningRecipe
from saliency_r1.training.run import check_keep_best


@dataclass(frozen=True, kw_only=True)
class SFTRecipe(FineTuningRecipe):
    """A recipe of `train sft` for the nano policy.

    Attributes:
        tokenizer: folder of `saliency-r1 data tokenizer`; with `start` only for another vocabulary.
        start: folder of a policy to go on from; None for a new one.
        vision: folder of the nano segmenter whose backbone the policy sees with; None for ImageNet's alone,
            or to keep that of `start`.
        foreground: the DUTS folder, or one of photos and masks, on whose training masks the policy's reading
            of the salient region is fitted first; needs `features`. None for a policy without one, or to keep
            that of `start`.
        instances: whether the policy's reading of single objects is fitted first, on the pictures of `train`
            with an instance map beside them, as composed scenes have; needs `features`. False for a policy
            without one, or to keep that of `start`.
        instance_data: folders of COCO json sets whose pictures it is fitted on too; all that is annotated in
            them must stand out, as in the scenes of `saliency-r1 data scenes`.
        instance_steps: steps of that fit.
        names: file of `saliency-r1 data names`: the names that the policy reads, which are fitted first on
            `named_photos`. None for a policy without a reader of names, or to keep that of `start`.
        named_photos: folders whose photos say what is in them: COCO json sets with their categories, DUTS and
            folders of photos and masks with a synsets.json.
        imagenet: `imagenet1k.json`, so that the reader starts from ImageNet's classifier; None to do without.
        features: folder of the vision features; None to run the tower in every step.
        width, layers, heads, kv_heads, feed_forward: sizes of the language model.
        adapter_layers: transformer layers over the tokens of one image.
        adapter_dropout: dropout there and on the vision features, while training.
        freeze_vision: whether the vision tower keeps its weights.
        keep_best: whether `policy/` is the checkpoint of the lowest validation loss, not the last; then
            `save_every` must be a multiple of `validate_every`.
        decode: validation examples that are answered greedily at each validation.
        decode_tokens: where such an answer is cut.
        renamed: share of the examples of one noun that are told, and say, another name, see
            `examples.renamed`; for a policy with a reader of names.
        epochs: passes over `train`; 0, without `max_steps`, only fits what the policy reads of a photo.
        words_weight: weight of an extra loss, see `words_loss`, for a policy with a new adapter.
    """

    tokenizer: Path | None = None
    start: Path | None = None
    vision: Path | None = None
    foreground: Path | None = None
    instances: bool = False
    instance_data: tuple[Path, ...] = ()
    instance_steps: int = 2000
    names: Path | None = None
    named_photos: tuple[Path, ...] = ()
    imagenet: Path | None = None
    features: Path | None = None
    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 768
    adapter_layers: int = 2
    adapter_dropout: float = 0.1
    freeze_vision: bool = True
    epochs: float = 10.0
    batch_size: int = 32
    weight_decay: float = 0.05
    keep_best: bool = False
    decode: int = 64
    decode_tokens: int = 192
    renamed: float = 0.0
    words_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_best:
            check_keep_best(self)
        if self.features is not None and not self.freeze_vision:
            raise ValueError("features are of a frozen tower: drop features, or set freeze_vision to true")
        if self.foreground is not None and self.features is None:
            raise ValueError("foreground is fitted on kept features: give features, or drop foreground")
        if self.instances and self.features is None:
            raise ValueError("instances are fitted on kept features: give features, or drop instances")
        if self.instance_data and not self.instances:
            raise ValueError("instance_data is for the fit of instances: set instances to true, or drop it")
        if self.names is not None and self.features is None:
            raise ValueError("names are fitted on kept features: give features, or drop names")
        if self.start is None and self.tokenizer is None:
            raise ValueError("a new policy needs a tokenizer: give tokenizer, or start")
