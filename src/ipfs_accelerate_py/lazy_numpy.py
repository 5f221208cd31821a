"""numpy, imported when it is first used: answers that need configurations and formulas alone come in half the time without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        def __getattr__(self, name: str) -> Any:
            import numpy

            value = getattr(numpy, name)
            setattr(self, name, value)  # the next time it is an attribute like any other
            return value

    np = _Numpy()

__all__ = ["np"]
