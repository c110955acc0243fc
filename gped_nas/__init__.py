"""Find the small network that replaces a Bayesian ensemble, and see what it gives up.

    import gped_nas as gn

    study = gn.run("digits_mlp")
    student = gn.load_student(study.path / "students" / str(study.chosen().trial))

Importing this package imports neither torch nor Optuna; the names below are loaded when they are
first used.

A tensor's name ends with its axes, one letter each, in this order: P students, K chains, S
posterior samples, B batch or N examples, then features: C classes, D input dimensions, G target
dimensions, U raw outputs, W flat weights. ``docs/architecture.md`` has all letters and the floors.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
"""Read by the build, ``gped-search --version`` and the test of CITATION.cff."""

__all__ = [
    "CodecFront",
    "Cost",
    "Dataset",
    "Evaluation",
    "FAMILIES",
    "Genotype",
    "METHODS",
    "METRICS",
    "SCORES",
    "SearchSpace",
    "Student",
    "Study",
    "StudyVerdict",
    "SuiteResult",
    "TARGETS",
    "TeacherTuning",
    "TrialRecord",
    "as_dataset",
    "attack",
    "build_teacher",
    "certify",
    "certify_box",
    "codec",
    "compare_methods",
    "compare_studies",
    "cost",
    "describe_prior",
    "diagnose",
    "distill_from",
    "evaluate_tasks",
    "export_posterior",
    "export_student",
    "judge",
    "known_cost",
    "load_dataset",
    "load_ensemble",
    "load_space",
    "load_stream",
    "load_student",
    "load_teacher",
    "new_session",
    "open_study",
    "pareto_front",
    "predict_files",
    "record_predictions",
    "replay",
    "run",
    "run_suite",
    "serve_study",
    "summarise",
    "tune_teacher",
]

if TYPE_CHECKING:
    from gped_nas.api import (
        FAMILIES,
        METHODS,
        METRICS,
        SCORES,
        TARGETS,
        CodecFront,
        Cost,
        Dataset,
        Evaluation,
        Genotype,
        SearchSpace,
        Student,
        Study,
        StudyVerdict,
        SuiteResult,
        TeacherTuning,
        TrialRecord,
        as_dataset,
        attack,
        build_teacher,
        certify,
        certify_box,
        codec,
        compare_methods,
        compare_studies,
        cost,
        describe_prior,
        diagnose,
        distill_from,
        evaluate_tasks,
        export_posterior,
        export_student,
        judge,
        known_cost,
        load_dataset,
        load_ensemble,
        load_space,
        load_stream,
        load_student,
        load_teacher,
        new_session,
        open_study,
        pareto_front,
        predict_files,
        record_predictions,
        replay,
        run,
        run_suite,
        serve_study,
        summarise,
        tune_teacher,
    )

_NEW_NAMES = {"compare": "compare_methods", "write_comparison": "compare_studies"}
"""Names of earlier versions, which still work and warn."""

if not TYPE_CHECKING:  # to a type checker, a name that is not above is an error

    def __getattr__(name: str) -> Any:
        import importlib

        if name in _NEW_NAMES:
            import warnings

            message = f"gped_nas.{name} is called {_NEW_NAMES[name]} now"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            name = _NEW_NAMES[name]

        if name not in __all__:
            raise AttributeError(f"module 'gped_nas' has no attribute {name!r}")
        return getattr(importlib.import_module("gped_nas.api"), name)


def __dir__() -> list[str]:
    return [*__all__, "__all__", "__doc__", "__version__"]
