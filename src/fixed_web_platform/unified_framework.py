"""``from fixed_web_platform.unified_framework import UnifiedWebPlatform``."""

from ipfs_accelerate_py.web.async_platform import AsyncUnifiedWebPlatform
from ipfs_accelerate_py.web.configuration import Configuration
from ipfs_accelerate_py.web.detector import PlatformDetector
from ipfs_accelerate_py.web.errors import (
    BrowserCompatibilityError,
    ConfigurationError,
    HardwareError,
    ModelError,
    ShardingError,
    WebPlatformError,
    WebRuntimeError,
)
from ipfs_accelerate_py.web.platform import UnifiedWebPlatform
from ipfs_accelerate_py.web.requests import Token

__all__ = [
    "AsyncUnifiedWebPlatform",
    "BrowserCompatibilityError",
    "Configuration",
    "ConfigurationError",
    "HardwareError",
    "ModelError",
    "PlatformDetector",
    "ShardingError",
    "Token",
    "UnifiedWebPlatform",
    "WebPlatformError",
    "WebRuntimeError",
]
