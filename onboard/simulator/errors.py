"""What can go wrong in the simulator.

UserError
└── SimulatorError          a setting of the simulated world or flight that cannot be used
HardwareError
└── SimulatorLinkError      an address that the simulated autopilot cannot use
"""

from __future__ import annotations

from gossan.errors import HardwareError, UserError


class SimulatorError(UserError):
    """A setting of the simulated world or flight that cannot be used."""


class SimulatorLinkError(HardwareError):
    """An address that the simulated autopilot cannot use."""
