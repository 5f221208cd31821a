"""How fast a model will be where it was not measured, with an interval, from measured ceilings and measured errors."""

from .prediction import Candidate, Interval, Prediction
from .predictor import Predictor

__all__ = ["Candidate", "Interval", "Prediction", "Predictor"]
