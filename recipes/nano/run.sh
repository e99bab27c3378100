#!/usr/bin/env bash
# The nano model, the whole way from data to weights. From the repository's root:
#
#   bash recipes/nano/run.sh                      # every stage of `all`, in this order
#   bash recipes/nano/run.sh segmenter words      # these stages alone
#
# A stage that was interrupted goes on where it stopped: run the same command again. Change what a stage does in
# its recipe. On two CPU cores all stages together take about nine hours; benchmarks/RESULTS.md has what was
# measured, and what differed for the embedded weights.
#
# It needs DUTS-TR in its official layout in ../shared/data/DUTS, and photos with COCO json in
# ../shared/data/COCO-train and ../shared/data/balloon-train; the last stage also needs the other folders that
# segmenter-fine.yaml names.
set -euo pipefail

all=(segmenter words segmenter_scenes tasks instances questions cgpo segmenter_fine)

# The segmenter learns to find what an expression names, on DUTS-TR photos and compositions of them.
segmenter() {
    saliency-r1 train segmenter --config recipes/nano/segmenter.yaml --resume
}

# The policy learns to reason about the salient object and to name it: first to write, then to measure.
words() {
    saliency-r1 data sft --data ../shared/data/DUTS --segmenter runs/segmenter/final --out runs/sft-data --variants 3
    saliency-r1 data tokenizer runs/sft-data/train.jsonl --out runs/tokenizer
    saliency-r1 train sft --config recipes/nano/sft.yaml --resume
    saliency-r1 train sft --config recipes/nano/sft-cues.yaml --resume
}

# The segmenter goes on with several objects: composed scenes, and real photos of instances.
segmenter_scenes() {
    saliency-r1 train segmenter --config recipes/nano/segmenter-scenes.yaml --resume
}

# The policy goes on with salient instances and groups.
tasks() {
    saliency-r1 data sft --data ../shared/data/DUTS --segmenter runs/segmenter-scenes/final --out runs/tasks-data \
        --tasks sod,sis,cosod --photos ../shared/data/COCO-train --photos ../shared/data/balloon-train \
        --limit 2500 --variants 2 --scenes 6000 --minimum-found 0.5 --groups 500 --draws 16
    saliency-r1 data tokenizer runs/tasks-data/train.jsonl --out runs/tasks-tokenizer
    saliency-r1 train sft --config recipes/nano/sft-tasks.yaml --resume
}

# More of instances, and of what stands out in scenes of several objects.
instances() {
    saliency-r1 data sft --data ../shared/data/DUTS --segmenter runs/segmenter-scenes/final --out runs/instances-data \
        --tasks sod,sis,cosod --photos ../shared/data/COCO-train --photos ../shared/data/balloon-train \
        --limit 1250 --variants 2 --scenes 6000 --minimum-found 0.5 --parts 1600 --groups 500 --draws 16
    saliency-r1 train sft --config recipes/nano/sft-instances.yaml --resume
}

# The questions of reinforcement learning, with the true masks that judge the answers.
questions() {
    saliency-r1 data scenes --data ../shared/data/DUTS --split train --count 2400 --groups 350 --seed 1 --out runs/scenes/train
    saliency-r1 data scenes --data ../shared/data/DUTS --split validation --count 96 --seed 5 --out runs/scenes/validation
    saliency-r1 data scenes --data ../shared/data/DUTS --split validation --count 0 --groups 24 --group-size 3 --seed 5 \
        --out runs/scenes/validation
    saliency-r1 data prompts runs/prompts/train.jsonl --duts ../shared/data/DUTS --each 2400 --group 3 --fast 0.5 \
        --sis runs/scenes/train --photos ../shared/data/COCO-train --photos ../shared/data/balloon-train \
        --cosod runs/scenes/train/groups
    saliency-r1 data prompts runs/prompts/validation.jsonl --split validation --duts ../shared/data/DUTS --each 96 --group 2 \
        --fast 0.5 --sis runs/scenes/validation --photos ../shared/data/COCO-train --photos ../shared/data/balloon-train \
        --cosod runs/scenes/validation/groups
}

# Reinforcement by the masks and by true statements: this policy is the embedded one.
cgpo() {
    saliency-r1 train cgpo --config recipes/nano/cgpo-words.yaml --resume
}

# The segmenter at 320 pixels, on all sources: this one is the embedded one. U²-Net's weights, u2net.onnx, are its
# teacher on photos of instances; without that file they are used for what is annotated in them alone.
segmenter_fine() {
    if [ -f u2net.onnx ]; then
        saliency-r1 data masks ../shared/data/COCO-train/images --teacher u2net.onnx --out runs/teacher/COCO-train --resume
    fi
    saliency-r1 train segmenter --config recipes/nano/segmenter-fine.yaml --resume
    saliency-r1 train segmenter --config recipes/nano/segmenter-fine.yaml --resume \
        start=runs/segmenter-fine/final output=runs/segmenter-fine-2 realign=false max_steps=540 warmup=0.07 \
        learning_rate=3e-4 transformer_rate=2e-4 "frozen_blocks=[5]" early_size=0 early_share=0 average=0.99 \
        edge_weight=1.5 alone=0.85 scenes=0.1 instances=0.14 composed=0.12 seed=17
}

# Not part of the way, each to be named: reinforcement that goes on from the embedded policy, by CGPO and by GRPO, ...
cgpo_embedded() {
    saliency-r1 train cgpo --config recipes/nano/cgpo.yaml --resume
}
grpo_embedded() {
    saliency-r1 train grpo --config recipes/nano/grpo.yaml --resume
}

# ... and the early-stopped policy that benchmarks/cgpo_vs_grpo.py starts from.
early() {
    saliency-r1 data sft --data ../shared/data/DUTS --segmenter runs/segmenter-scenes/final --out runs/early-data \
        --tasks sod,sis,cosod --photos ../shared/data/COCO-train --photos ../shared/data/balloon-train \
        --limit 300 --variants 1 --scenes 700 --minimum-found 0.5 --groups 60 --draws 4
    saliency-r1 train sft --config recipes/nano/sft-early.yaml --resume
}

for stage in "${@:-${all[@]}}"; do
    declare -F "$stage" >/dev/null || { echo "$stage: no such stage; read recipes/nano/run.sh" >&2; exit 2; }
    printf '\n== %s\n' "$stage"
    "$stage"
done
