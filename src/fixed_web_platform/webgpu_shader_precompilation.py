"""The published import name of low-bit set-up."""

from ipfs_accelerate_py.web.low_precision import setup_ultra_low_precision

__all__ = ["setup_ultra_low_precision"]
