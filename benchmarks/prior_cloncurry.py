"""The prior on the real Cloncurry layers: held-out calibration, time and memory, side by side."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from groundsync.prior.run import compute_prior
from groundsync.prior.settings import Area, Layer, Model, Occurrences, Priors

LAYERS = (
    ("stratigraphy", "strat_no", "categorical"),
    ("distance_to_breccia", "dist_breccia_m", "continuous"),
    ("fault_density", "fault_density_class", "categorical"),
    ("distance_to_fault", "dist_fault_m_200m", "continuous"),
)


def main() -> None:
    """Prints one line per setting; the data folder is the first argument."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = (Path(sys.argv[1]) if len(sys.argv) > 1 else beside) / "geology" / "cloncurry_iocg"
    print("merge_rare block_km  T/n  raw T/n  AUC block  AUC random  bits  CPU s")
    for merge_rare in (True, False):
        for block_km in (10.0, 20.0, 30.0):
            priors = Priors(
                area=Area(like=Path("raster/strat_no.tif")),
                occurrences=Occurrences(path=Path("vector/iocg_deposits.gpkg")),
                layers=tuple(
                    Layer(name=name, path=Path(f"raster/{file}.tif"), kind=kind)  # type: ignore[arg-type]
                    for name, file, kind in LAYERS
                ),
                model=Model(merge_rare=merge_rare, block_km=block_km),
            )
            start = time.process_time()
            result = compute_prior(priors, folder)
            spent = time.process_time() - start
            b = result.block
            print(
                f"{merge_rare!s:10} {block_km:8g} {b.t_over_n:4.2f} {b.raw_t_over_n:8.2f} "
                f"{b.auc:10.3f} {result.random.auc:11.3f} {b.information_gain_bits:5.2f} "
                f"{spent:6.1f}"
            )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
