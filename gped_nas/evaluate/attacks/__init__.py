"""Attacks on predictors, as conditions: see ``named`` for their names and ``docs/attacks.md``."""

from gped_nas.evaluate.attacks import named as named  # registers them
