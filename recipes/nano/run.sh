#!/usr/bin/env bash
# The nano model from data to weights. Run it from the repository's root:
#
#   bash recipes/nano/run.sh                      # every stage of `all`, in this order
#   bash recipes/nano/run.sh segmenter words      # only these stages
#
# A stage that was interrupted is resumed by the same command. Change what a stage does in its recipe. On two CPU
# cores all stages together take about ten hours; benchmarks/RESULTS.md says what was measured, and what
# differed for the embedded weights.
#
# It needs DUTS-TR in its official layout in ../shared/data/DUTS, imagenet1k.json in ../shared/data, and photos
# with COCO json in the folders that `photos` names.
set -euo pipefail

all=(segmenter segmenter_scenes segmenter_fine segmenter_long segmenter_instances segmenter_pasted \
    earlier_policy words questions cgpo)

data=../shared/data
photos=()
for set in COCO-train balloon-train extra/VOC-animals extra/Animals7 extra/COCO-extra extra/DogCat80 extra/Humans290; do
    photos+=(--photos "$data/$set")
done

# The segmenter learns to find what an expression names, on DUTS-TR photos and compositions of them.
segmenter() {
    saliency-r1 train segmenter --config recipes/nano/segmenter.yaml --resume
}

# Further training of the segmenter on several objects: composed scenes, and real photos of instances.
segmenter_scenes() {
    saliency-r1 train segmenter --config recipes/nano/segmenter-scenes.yaml --resume
}

# The segmenter at 320 pixels, on all sources. U²-Net's weights, u2net.onnx, are its teacher on photos of
# instances; without that file they are used for what is annotated in them alone.
segmenter_fine() {
    if [ -f u2net.onnx ]; then
        saliency-r1 data masks $data/COCO-train/images --teacher u2net.onnx --out runs/teacher/COCO-train --resume
        saliency-r1 data masks $data/extra/COCO-extra/images --teacher u2net.onnx --out runs/teacher/COCO-extra --resume
    fi
    saliency-r1 train segmenter --config recipes/nano/segmenter-fine.yaml --resume
    saliency-r1 train segmenter --config recipes/nano/segmenter-fine.yaml --resume \
        start=runs/segmenter-fine/final output=runs/segmenter-fine-2 realign=false max_steps=540 warmup=0.07 \
        learning_rate=3e-4 transformer_rate=2e-4 "frozen_blocks=[5]" early_size=0 early_share=0 average=0.99 \
        edge_weight=1.5 alone=0.85 scenes=0.1 instances=0.14 composed=0.12 seed=17
}

# Further training on 31,200 photos, with more scenes and compositions, the first half at 256 pixels.
segmenter_long() {
    saliency-r1 train segmenter --config recipes/nano/segmenter-fine.yaml --resume \
        start=runs/segmenter-fine-2/final output=runs/segmenter-long realign=false max_steps=2600 warmup=0.04 \
        learning_rate=6e-4 transformer_rate=4e-4 backbone_rate=1.2e-4 "frozen_blocks=[5]" early_share=0.5 \
        edge_weight=2.0 alone=0.8 scenes=0.15 instances=0.18 composed=0.18 seed=29
}

# The same on 33,600 photos, with more named instances of real photos.
segmenter_instances() {
    saliency-r1 train segmenter --config recipes/nano/segmenter-fine.yaml --resume \
        start=runs/segmenter-long/final output=runs/segmenter-instances realign=false max_steps=2800 warmup=0.04 \
        learning_rate=6e-4 transformer_rate=4e-4 backbone_rate=1.2e-4 "frozen_blocks=[5]" early_share=0.5 \
        edge_weight=2.0 alone=0.7 scenes=0.13 instances=0.26 composed=0.18 seed=41 start_share=0.4
}

# The same on 31,200 photos; a half of the photos of instances get instances of other photos. The embedded segmenter
# is that of this stage; the policy looks through the backbone of segmenter_fine.
segmenter_pasted() {
    saliency-r1 train segmenter --config recipes/nano/segmenter-fine.yaml --resume \
        start=runs/segmenter-instances/final output=runs/segmenter-pasted realign=false max_steps=2600 warmup=0.04 \
        learning_rate=6e-4 transformer_rate=4e-4 backbone_rate=1.2e-4 "frozen_blocks=[5]" early_share=0.5 \
        edge_weight=2.0 alone=0.7 scenes=0.11 instances=0.31 pasted=0.55 composed=0.18 seed=53 start_share=0.6
}

# The policy of version 0.1.0, which the policy starts from: it knows the language and the form of the answers.
# The recipes that made it are in the repository's history, at commit e2d7495.
earlier_policy() {
    mkdir -p runs
    git archive e2d7495 src/saliency_r1/nano/weights/policy | tar -x --strip-components 4 -C runs
}

# The policy learns to say what it is told of names, instances and the salient region, on all tasks.
words() {
    saliency-r1 data names runs/names.json --imagenet $data/imagenet1k.json --data $data/DUTS "${photos[@]}" \
        --photos $data/extra/DAVIS-val
    saliency-r1 data sft --data $data/DUTS --segmenter runs/segmenter-fine-2/final --names runs/names.json \
        --out runs/sft-data --tasks sod,sis,cosod "${photos[@]}" --no-mirror --variants 2 --minimum-found 0.5 \
        --limit 2500 --scenes 1500 --parts 300 --groups 150 --draws 6
    saliency-r1 data tokenizer runs/sft-data/train.jsonl --names runs/names.json --out runs/tokenizer
    saliency-r1 data scenes --data $data/DUTS --split train --count 4000 --seed 11 --out runs/fit-scenes
    saliency-r1 train sft --config recipes/nano/sft.yaml --resume
}

# The questions of reinforcement learning, with the true masks and names that judge the answers.
questions() {
    saliency-r1 data scenes --data $data/DUTS --split train --count 1200 --groups 200 --seed 1 --out runs/scenes/train
    saliency-r1 data scenes --data $data/DUTS --split validation --count 96 --seed 5 --out runs/scenes/validation
    saliency-r1 data scenes --data $data/DUTS --split validation --count 0 --groups 24 --group-size 3 --seed 5 \
        --out runs/scenes/validation
    saliency-r1 data prompts runs/prompts/train.jsonl --duts $data/DUTS --each 2400 --group 3 --fast 0.5 \
        --sis runs/scenes/train "${photos[@]}" --cosod runs/scenes/train/groups
    saliency-r1 data prompts runs/prompts/validation.jsonl --split validation --duts $data/DUTS --each 96 --group 2 \
        --fast 0.5 --sis runs/scenes/validation "${photos[@]}" --cosod runs/scenes/validation/groups
}

# Reinforcement by the masks, by right names and by true statements. It was not run to its end: the embedded policy is
# that of the stage before.
cgpo() {
    saliency-r1 train cgpo --config recipes/nano/cgpo-names.yaml --resume
}

# These stages run only if they are named: further reinforcement learning of the embedded policy by the masks alone,
# with CGPO and with GRPO ...
cgpo_embedded() {
    saliency-r1 train cgpo --config recipes/nano/cgpo.yaml --resume
}
grpo_embedded() {
    saliency-r1 train grpo --config recipes/nano/grpo.yaml --resume
}

# ... and the early-stopped policy from which benchmarks/cgpo_vs_grpo.py starts.
early() {
    saliency-r1 train sft --config recipes/nano/sft.yaml --resume output=runs/sft-early max_steps=500
}

# The graphs with which onnxruntime runs the embedded model. They refer to places in its weights, so they are written
# again after these were replaced.
graphs() {
    rm -rf runs/graphs
    saliency-r1 export nano --out runs/graphs --format onnx-8bit
    cmp runs/graphs/model.safetensors src/saliency_r1/nano/weights/policy/model.safetensors
    cp runs/graphs/*.onnx src/saliency_r1/nano/weights/policy
    cp runs/graphs/segmenter/*.onnx src/saliency_r1/nano/weights/segmenter
}

for stage in "${@:-${all[@]}}"; do
    declare -F "$stage" >/dev/null || { echo "$stage: no such stage; read recipes/nano/run.sh" >&2; exit 2; }
    printf '\n== %s\n' "$stage"
    "$stage"
done
