#!/bin/sh
# Rebuilds models/zoo/surface-rgb from raw data, on two cores, or on a GPU with
#   TRAIN="--device cuda --workers 16 --size 256 --fold 6 --rate 0.0025" JOBS=16
#   benchmarks/train_surface_rgb.sh DATA OUT      DATA holds training/coast_water; OUT is made
# Copy OUT/surface-rgb over models/zoo/surface-rgb when its figures are better.
set -eu
DATA=$1
OUT=$2
STEPS=${STEPS:-9000}
COUNT=${COUNT:-1500}
JOBS=${JOBS:-2}
TRAIN=${TRAIN:-}
GOSSAN=${GOSSAN:-gossan}
COAST="$DATA/training/coast_water"
HELD="--hold-out surface=20200209 --hold-out surface=20181008 --hold-out surface=20160309 --hold-out surface=2017"
export OMP_WAIT_POLICY=PASSIVE
mkdir -p "$OUT"

[ -e "$OUT/sim/dataset.toml" ] || $GOSSAN onboard simulate --dataset "$OUT/sim" --family train --seed 1 --count "$COUNT" --jobs "$JOBS"
[ -e "$OUT/sim-held/dataset.toml" ] || $GOSSAN onboard simulate --dataset "$OUT/sim-held" --family train --seed 2 --count 60

# shellcheck disable=SC2086
$GOSSAN models train --head surface="$COAST" --head anomaly="$OUT/sim" --textures "$COAST" $HELD \
  --out "$OUT/run" --steps "$STEPS" --precision bfloat16 --seed 1 --resume $TRAIN
$GOSSAN models export "$OUT/run" --out "$OUT/surface-rgb" --name surface-rgb --gsd 0.10
# shellcheck disable=SC2086
$GOSSAN models quantize "$OUT/surface-rgb" --on surface="$COAST" --on anomaly="$OUT/sim-held" $HELD \
  --alarms-per-km2 25 --method percentile --json > "$OUT/figures.json"
$GOSSAN models verify "$OUT/surface-rgb" --probe
cat "$OUT/figures.json"
