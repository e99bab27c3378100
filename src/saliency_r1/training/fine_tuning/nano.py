"""Supervised fine-tuning of the nano policy: it learns to write the reasoning and the expression.

    saliency-r1 train sft --config recipes/nano/sft.yaml

TRL's SFTTrainer with the loss on the response alone. The vision tower is frozen by default; its features are
then computed once. A run folder holds `recipe.json`, `metrics.csv`, `tensorboard/`, `checkpoint-*` and at the
end `policy/`, which `TransformersPolicy.from_pretrained` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, set_seed
from trl import SFTTrainer

from saliency_r1 import nano
from saliency_r1.data.samples import spread
from saliency_r1.errors import ResponseError, SaliencyError, one_line
from saliency_r1.language.imagenet import imagenet_synsets
from saliency_r1.nano.backbone import classifier_bias, classifier_weights
from saliency_r1.nano.configuration import NanoConfig
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.nano.processing import NanoImageProcessor, NanoProcessor
from saliency_r1.response import parse_strict
from saliency_r1.training.checkpoints import WholeCheckpoints
from saliency_r1.training.exporting import export_policy
from saliency_r1.training.features import FeatureCache
from saliency_r1.training.fine_tuning.examples import Collator, Pictures, prompt_text, renamed, tokenise
from saliency_r1.training.fine_tuning.fit_names import start_reader
from saliency_r1.training.fine_tuning.nano_recipe import SFTRecipe
from saliency_r1.training.fine_tuning.readings import fit_readings
from saliency_r1.training.fine_tuning.recipe import fine_tuning_settings
from saliency_r1.training.fine_tuning.vocabulary import change_tokenizer, take_columns
from saliency_r1.training.logs import TrainerLog
from saliency_r1.training.progress import TrainerLines
from saliency_r1.training.run import POLICY, begin
from saliency_r1.writing.sft_set import SFTExample, read_examples


def words_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of predicting, from the image tokens alone, which words the response holds.

    Without it a policy from nothing learns the responses' language first and stays blind for thousands of
    steps.

    Args:
        logits: (B, V), the vocabulary head on the mean image token of each example.
        labels: (B, T), tokens of the response, -100 elsewhere. Tokens that most of the batch's responses
            hold do not count.
    """
    said = torch.zeros_like(logits, dtype=torch.float32)
    said.scatter_add_(1, labels.clamp(min=0), (labels >= 0).float())
    said = (said > 0).float()
    telling = said * (said.mean(0) < 0.5)
    share = telling / telling.sum(1, keepdim=True).clamp(min=1)
    return -(share * logits.float().log_softmax(1)).sum(1).mean()


class PolicySFTTrainer(WholeCheckpoints, SFTTrainer):
    """SFTTrainer that also answers questions at validation.

    Args:
        answered: examples that `evaluate` answers greedily.
        pictures: gives their pictures.
        decode_tokens: where an answer is cut.
        words_weight: weight of `words_loss`.
        **arguments: SFTTrainer's.
    """

    def __init__(
        self,
        answered: Sequence[SFTExample],
        pictures: Pictures,
        decode_tokens: int,
        words_weight: float = 0.0,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._answered, self._pictures, self._decode_tokens = answered, pictures, decode_tokens
        self._words_weight = words_weight
        self._image_tokens: Tensor | None = None
        adapter = getattr(getattr(self.model, "model", None), "adapter", None)
        if words_weight and adapter is not None:
            adapter.register_forward_hook(self._keep)

    def _keep(self, module: Any, arguments: Any, tokens: Tensor) -> None:
        self._image_tokens = tokens[0]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of the response's tokens; while training also that of `words_loss`."""
        labels, ids = inputs["labels"], inputs["input_ids"]
        policy: Any = self.model
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, outputs = found if return_outputs else (found, None)
        if self._image_tokens is not None and self._words_weight and policy.training:
            pooled = self._image_tokens.mean(1)
            per_image = policy.config.image_tokens
            counts = (ids == policy.config.image_token_id).sum(1) // per_image
            row_of = torch.arange(len(ids), device=ids.device).repeat_interleave(counts)
            pooled = pooled.new_zeros(len(ids), pooled.shape[1]).index_add(0, row_of, pooled)
            pooled = pooled / counts.clamp(min=1)[:, None]
            words = words_loss(policy.lm_head(pooled.to(policy.lm_head.weight.dtype)), labels)
            loss = loss + self._words_weight * words
        self._image_tokens = None
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        metrics = super().evaluate(*arguments, **options)
        if self._answered:
            extra = self._answer()
            self.log(dict(extra))
            metrics.update(extra)
        return metrics

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """None: the card of the published weights is written by hand."""

    def _answer(self) -> dict[str, float]:
        """Each process answers its share, so that none waits for another's."""
        model = self.accelerator.unwrap_model(self.model)
        own = self._answered[self.accelerator.process_index :: self.accelerator.num_processes]
        texts = greedy_responses(model, self.processing_class, own, self._pictures, self._decode_tokens)
        strict = same = 0
        for example, text in zip(own, texts, strict=True):
            try:
                found = parse_strict(text, example.task).expressions
            except ResponseError:
                continue
            strict += 1
            same += found == parse_strict(example.response, example.task).expressions
        counts = torch.tensor([strict, same], dtype=torch.float64).to(self.accelerator.device)
        strict_share, same_share = (self.accelerator.reduce(counts) / len(self._answered)).tolist()
        return {"eval_strict_parse": strict_share, "eval_same_expression": same_share}


@torch.inference_mode()
def greedy_responses(
    model: Any,
    processor: Any,
    examples: Sequence[SFTExample],
    pictures: Pictures,
    max_new_tokens: int = 128,
    batch_size: int = 32,
) -> list[str]:
    """The model's own answer to each example, decoded greedily.

    Args:
        model: a `NanoForImageTextToText`; its mode (train or eval) is as before afterwards.
        processor: its processor.
        examples: what to ask.
        pictures: gives their pictures.
        max_new_tokens: where an answer is cut.
        batch_size: questions at a time.
    """
    tokenizer, training = processor.tokenizer, model.training
    model.eval()
    holders = processor.replace_image_token({}, 0)
    texts: list[str] = []
    for start in range(0, len(examples), batch_size):
        chosen = examples[start : start + batch_size]
        prompts = [prompt_text(processor, example.prompt, len(example.images)) for example in chosen]
        prompts = [prompt.replace(processor.image_token, holders) for prompt in prompts]
        inputs = tokenizer(
            prompts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
        )
        inputs.update(pictures([key for example in chosen for key in example.keys]))
        inputs = inputs.to(model.device)
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answers = output[:, inputs["input_ids"].shape[1] :]
        texts += tokenizer.batch_decode(answers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    model.train(training)
    return texts


def train_sft(recipe: SFTRecipe, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Fine-tune a nano policy.

    Args:
        recipe: what to do.
        resume, overwrite: what to do about a run that `recipe.output` holds, see `begin`.

    Returns:
        The folder of the finished policy.

    Raises:
        SaliencyError: for data that cannot be read, or an output that holds a run.
    """
    checkpoint = begin(recipe, resume=resume, overwrite=overwrite)
    train = read_examples(recipe.train)
    validation = read_examples(recipe.validation) if recipe.validation else []
    set_seed(recipe.seed)
    model, processor = _policy(recipe)
    settings = fine_tuning_settings(
        recipe,
        load_best_model_at_end=recipe.keep_best,
        metric_for_best_model="eval_loss" if recipe.keep_best else None,
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        gradient_checkpointing=False,
    )
    if settings.device.type == "cpu":
        model.set_attn_implementation(
            "eager"
        )  # at these lengths a fifth faster than the fused kernel's backward
    cache = None
    if recipe.features is not None:
        with settings.main_process_first():
            model.to(settings.device)
            cache = FeatureCache(recipe.features, model, processor, recipe.image_root)
            cache.add(key for example in (*train, *validation) for key in example.keys)
    if checkpoint is not None and model.config.name_tree:
        # The weights are loaded later, but the threshold is no weight.
        model.config.name_threshold = AutoConfig.from_pretrained(checkpoint).name_threshold
        model.model.adapter.names.threshold = model.config.name_threshold
    if cache is not None and checkpoint is None:
        fit_readings(recipe, model, processor, cache, train, validation)
    folder = recipe.output / POLICY
    if recipe.max_steps <= 0 and not recipe.epochs:  # its words stay as they are
        if settings.process_index == 0:
            export_policy(model, processor, folder)
        return folder
    pictures = Pictures(processor, recipe.image_root, cache)
    reader = model.model.adapter.names
    words = reader.numbers if reader is not None else None
    if words is not None:
        train = renamed(train, reader.tree, words, recipe.renamed, recipe.seed)
    trainer = PolicySFTTrainer(
        answered=spread(validation, recipe.decode),
        pictures=pictures,
        decode_tokens=recipe.decode_tokens,
        words_weight=recipe.words_weight,
        model=model,
        args=settings,
        processing_class=processor,
        train_dataset=tokenise(train, processor, words),
        eval_dataset=tokenise(validation, processor, words) if validation else None,
        data_collator=Collator(processor.tokenizer.pad_token_id, pictures),
        callbacks=[TrainerLog(recipe)],
    )
    TrainerLines.of(trainer, "policy")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.is_world_process_zero():
        export_policy(trainer.accelerator.unwrap_model(trainer.model), processor, folder)
    trainer.accelerator.wait_for_everyone()
    return folder


def _policy(recipe: SFTRecipe) -> tuple[Any, Any]:
    """The policy to train and its processor."""
    nano.register()
    tree = NameTree.load(recipe.names) if recipe.names is not None else None
    if recipe.start is not None:
        try:
            started = AutoModelForImageTextToText.from_pretrained(
                recipe.start,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                freeze_vision=recipe.freeze_vision,
                adapter_dropout=recipe.adapter_dropout,
                **({"foreground": True} if recipe.foreground else {}),
                **({"instances": True} if recipe.instances else {}),
                **({"name_tree": tree.to_dict()} if tree is not None else {}),
            )
            processor = AutoProcessor.from_pretrained(recipe.start)
        except (OSError, ValueError) as error:
            reason = one_line(error)
            raise SaliencyError(f"no policy could be loaded from {recipe.start}: {reason}") from None
        take_columns(started, recipe.start)
        if recipe.vision is not None:
            started.model.load_segmenter(recipe.vision)
        if recipe.tokenizer is not None:
            tokenizer = _tokenizer(recipe.tokenizer)
            change_tokenizer(started, processor.tokenizer, tokenizer)
        else:
            tokenizer = processor.tokenizer
        _start_names(recipe, started, tokenizer)
        return started, NanoProcessor(
            NanoImageProcessor(), tokenizer, image_tokens=started.config.image_tokens
        )
    tokenizer = _tokenizer(recipe.tokenizer)
    config = NanoConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 8) * 8,
            "hidden_size": recipe.width,
            "intermediate_size": recipe.feed_forward,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.kv_heads,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        adapter_layers=recipe.adapter_layers,
        adapter_heads=recipe.heads,
        adapter_dropout=recipe.adapter_dropout,
        foreground=recipe.foreground is not None,
        instances=recipe.instances,
        name_tree=None if tree is None else tree.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        freeze_vision=recipe.freeze_vision,
    )
    model = NanoForImageTextToText(config)
    if recipe.vision is not None:
        model.model.load_segmenter(recipe.vision)
    else:
        model.model.vision_tower.load_imagenet()
    _start_names(recipe, model, tokenizer)
    return model, NanoProcessor(NanoImageProcessor(), tokenizer, image_tokens=config.image_tokens)


def _start_names(recipe: SFTRecipe, model: Any, tokenizer: Any) -> None:
    """Spell the names with the tokenizer; start their reader where the recipe gives a new one."""
    reader = model.model.adapter.names
    if reader is None:
        return
    reader.spell(tokenizer)
    if recipe.names is None:
        return
    before = None
    if recipe.start is not None:
        earlier = AutoConfig.from_pretrained(recipe.start)
        if earlier.name_tree:
            before = NanoForImageTextToText.from_pretrained(recipe.start, dtype=torch.float32)
            before = before.model.adapter.names
    classes: dict[str, int] = {}
    if recipe.imagenet is not None:
        classes = {synset.id: number for number, synset in imagenet_synsets(recipe.imagenet).items()}
    start_reader(reader, classes, classifier_weights("lite0"), classifier_bias("lite0"), before)


def _tokenizer(folder: Path | None) -> Any:
    if folder is None or not (folder / "tokenizer.json").is_file():
        raise SaliencyError(f"{folder} holds no tokenizer: make one with `saliency-r1 data tokenizer`")
    return AutoTokenizer.from_pretrained(folder)
