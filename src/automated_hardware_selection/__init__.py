"""The published import name of the hardware recommendation; everything is in ``ipfs_accelerate_py.recommend``."""

from ipfs_accelerate_py.errors import UnavailableError, UserError
from ipfs_accelerate_py.recommend.select import select_optimal_hardware
from ipfs_accelerate_py.recommend.selection import HardwareSelection

__all__ = ["HardwareSelection", "UnavailableError", "UserError", "select_optimal_hardware"]
