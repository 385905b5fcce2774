"""What can go wrong with models and their data.

UserError
├── ModelError          a model or manifest that cannot be used as it is
├── DatasetError        a dataset folder, an image, a mask or a class that cannot be used
├── TrainingError       a training run that cannot go on
├── GateError           a quantized model that is worse than allowed
└── (MissingExtraError)
    └── EngineMissing   no ONNX Runtime at hand
DamagedDataError
└── DamagedModelError   a file that is not what the manifest's hash says
HardwareError
└── ProviderError       an inference provider that was asked for and does not answer
NotBuiltError
└── FormatNotBuilt      a dataset or decoder whose first version is still to come
"""

from __future__ import annotations

from gossan.errors import (
    DamagedDataError,
    HardwareError,
    MissingExtraError,
    NotBuiltError,
    UserError,
)


class ModelError(UserError):
    """A model or a manifest that cannot be used as it is."""


class DatasetError(UserError):
    """A dataset folder, an image, a mask or a class that cannot be used."""


class TrainingError(UserError):
    """A training run that cannot go on."""


class GateError(UserError):
    """A quantized model that is worse than its gates allow."""


class EngineMissing(MissingExtraError):  # noqa: N818 (the name is the seam's)
    """No ONNX Runtime is installed."""


class DamagedModelError(DamagedDataError):
    """A model file that is missing, unreadable or not what the manifest's hash says."""


class ProviderError(HardwareError):
    """An inference provider that was asked for and does not give the golden answer."""


class FormatNotBuilt(NotBuiltError):  # noqa: N818
    """A dataset layout or a decoder whose first version is still to come."""
