"""The numbers of a small grid, with hostile names in it."""

from typing import Any

from gped_nas.suite.summary import rank_all, summarize

HOSTILE = "<script>alert(1)</script> & _50%_"


def _row(method: str, seed: int, value: float, metric: str) -> dict[str, Any]:
    return {
        **{"schema_version": 1, "task": "prediction", "teacher": HOSTILE, "method": method},
        **{"student": "none", "seed": seed, "subject": "teacher", "metric": metric},
        **{"condition": "clean", "part": "test", "detail": "", "value": value, "n": 100},
        **{"low": value - 0.01, "high": value + 0.01, "curve": [1, 2]},
    }


def make_rows() -> list[dict[str, Any]]:
    """Two metrics of three methods and six seeds, always in one order."""
    rows = []
    for seed in range(6):
        for place, method in enumerate(("swag", "=sgld", "map")):
            rows.append(_row(method, seed, 0.2 + 0.1 * place + 0.01 * seed, "nll"))
            rows.append(_row(method, seed, 0.9 - 0.1 * place - 0.01 * seed, "accuracy"))
    return rows


def make_data() -> dict[str, Any]:
    """What ``suite.json`` holds of them."""
    rows = make_rows()
    axes = {"methods": ["swag", "=sgld", "map"], "teachers": [HOSTILE], "students": ["none"]}
    problem = {"teacher": "t", "method": "m", "student": "none", "task": "prediction", "seed": 0}
    return {
        **{"schema_version": 1, "name": HOSTILE, "part": "test", "cells": 19, "seconds": 12.0},
        "axes": {**axes, "tasks": ["prediction"], "seeds": list(range(6))},
        "means": summarize(rows),
        "rankings": rank_all(rows),
        "problems": [{**problem, "problem": "it left the finite numbers <b>"}],
        "notes": ["choose nothing by them"],
    }
