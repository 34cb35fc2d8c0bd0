#!/usr/bin/env bash
# Exact-length motions for the HumanML3D official test set, with the variables of the published model card:
#
#   NGPU=6 TOTAL_SHARDS=6 LIMIT=0 OUT=outputs/... ARTIFACT=checkpoints/... STEPS=150 DTYPE=bf16 \
#   bash scripts/eval/run_motionmillion_official272_exactlen_genonly.sh
#
# Calls `hftrainer evaluate generate`. All shards are generated here, NGPU at a time, unless SHARD_BASE is set: then only
# shards SHARD_BASE ... SHARD_BASE + NGPU - 1, and the exit status is 3 until the other machines' shards exist too.
# ARTIFACT="" selects released files: FSQ, AR, TEXT. DEVICE=cpu runs NGPU processes without a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TEST=outputs/evaluation/t2m/humanml3d_official_test
OUT=${OUT:-$TEST/ms272/gotozero_7b_train}
ANNO=${ANNO:-$TEST/captions/humanml3d_official_corrected/test_hml3d_official272_gtlen_official_caption.json}
ARTIFACT=${ARTIFACT-checkpoints/gotozero/hftrainer_7b_train_humanml272}
FSQ=${FSQ:-checkpoints/motionmillion/pretrained_models/fsq.zip}
AR=${AR:-checkpoints/motionmillion/pretrained_models/motionmillion_7B.pth}
STEPS=${STEPS:-150}
DTYPE=${DTYPE:-bf16}
LIMIT=${LIMIT:-0}
LOGDIR=${LOGDIR:-$(dirname "$OUT")/_logs}
PY=${PY:-$(command -v python3 || command -v python)} || { echo "no python was found; set PY" >&2; exit 2; }
if [[ -z ${NGPU:-} ]]; then
  NGPU=$("$PY" -c 'import torch; print(max(1, torch.cuda.device_count()))')
fi
TOTAL_SHARDS=${TOTAL_SHARDS:-$NGPU}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

arguments=(--out "$OUT" --pair-source annotation --anno "$ANNO" --steps "$STEPS" --dtype "$DTYPE" --limit "$LIMIT"
           --workers "$NGPU" --num-shards "$TOTAL_SHARDS" --logs "$LOGDIR")
if [[ -n $ARTIFACT ]]; then
  arguments+=(--model "$ARTIFACT")
else
  arguments+=(--fsq "$FSQ" --ar "$AR")
  if [[ -n ${TEXT:-} ]]; then arguments+=(--text-model "$TEXT"); fi
fi
if [[ -n ${SHARD_BASE:-} ]]; then arguments+=(--shard-base "$SHARD_BASE"); fi
if [[ -n ${DEVICE:-} ]]; then arguments+=(--device "$DEVICE"); fi
exec "$PY" -m hftrainer evaluate generate "${arguments[@]}" "$@"
