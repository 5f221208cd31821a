"""Trained predictors kept on disk, by the stores they were trained on: training reads every launch, and predicting must not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import paths
from ..errors import UserError
from ..spec import identity
from .fitted import FORMAT, Fitted


def trained(stores: Sequence[Path], reference: bool) -> Fitted:
    """From the cache where the stores have not changed since, otherwise trained now. UserError where there is nothing to train on."""
    place = _place(stores, reference)
    if place.is_file():
        return Fitted.from_json(place.read_text(encoding="utf-8"))
    fitted = train_now(stores, reference)
    fitted.save(place)
    return fitted


def keep(stores: Sequence[Path], reference: bool, fitted: Fitted) -> Path:
    """Put a predictor where ``trained`` finds it for these stores."""
    return fitted.save(_place(stores, reference))


def train_now(stores: Sequence[Path], reference: bool) -> Fitted:
    """Train on the stores as they are. An empty store adds nothing; with no measured cell at all, and no reference, it is a UserError."""
    from .observations import read
    from .training import train

    evidence = read(stores, paths.reference_folders() if reference else ())
    if not evidence.observations and not evidence.probes:
        raise UserError(
            f"{' and '.join(map(str, stores)) or 'Nothing'} holds no measured launch and no probe to learn from: run "
            "'ipfs-accelerate bench' or 'ipfs-accelerate calibrate', or keep the reference measurements."
        )
    return train(evidence)


def _place(stores: Sequence[Path], reference: bool) -> Path:
    marks = []
    for store in stores:
        if not store.is_file():
            raise UserError(
                f"There is no store at {store}: make one with 'ipfs-accelerate bench', or name another with --store."
            )
        status = store.stat()
        marks.append([str(store.resolve()), status.st_size, status.st_mtime_ns])
    exports = (
        [[str(each), (each / "manifest.json").stat().st_mtime_ns] for each in paths.reference_folders()] if reference else []
    )
    return paths.cache_folder() / "predictors" / f"{identity([FORMAT, marks, exports])}.json"
