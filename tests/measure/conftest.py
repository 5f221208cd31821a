"""Timings decide no test: Hypothesis sets no deadline, on machines that are busy too."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
