"""Metrics in general: resamples, intervals, what applies and what is refused."""

import time

import numpy as np
import pytest

from gped_nas.errors import DataError, DivergenceError, RegistryError
from gped_nas.evaluate.base import METRICS, Metric, Resamples, draw_resamples
from gped_nas.evaluate.judging import evaluate, evaluate_or_explain, paired_difference
from gped_nas.evaluate.measured import Key, finite_values, from_public, to_public
from gped_nas.evaluate.predictions import Predictions


def random_predictions(seed, n=300, num_classes=4, sharpness=1.0):
    generator = np.random.default_rng(seed)
    prob = generator.dirichlet(np.full(num_classes, 1.0 / sharpness), n)
    return Predictions(np.log(prob + 1e-12), {"expected_entropy": generator.random(n)})


def metrics_of_classes():
    """Metrics of labels that read nothing but predictive probabilities and entropies."""
    targets = {"predictive", "expected_entropy", "mutual_information"}
    metrics = {}
    for name, metric in METRICS.items():
        if "classification" not in metric.tasks or metric.task != "prediction":
            continue
        if metric.read_of_student("classification") <= targets:
            metrics[name] = metric
    return metrics


CLASSIFICATION = metrics_of_classes()
ALWAYS = {name for name, metric in CLASSIFICATION.items() if metric.always}


@pytest.fixture
def student():
    return random_predictions(0)


@pytest.fixture
def teacher():
    return random_predictions(1)


@pytest.fixture
def labels():
    return np.random.default_rng(2).integers(4, size=300)


@pytest.fixture
def resamples():
    return draw_resamples(300, root=0, part="validation")


def rows(predictions, index):
    expectations = {name: values[index] for name, values in predictions.expectations.items()}
    return Predictions(predictions.log_prob_NC[index], expectations)


def test_values_and_resampled_values_equal_those_of_repeated_examples(student, teacher, labels):
    resamples = draw_resamples(300, root=5, part="test", num_resamples=150)
    for metric in CLASSIFICATION.values():
        vectorized = metric.on_resamples(metric.terms(student, labels, teacher), resamples)
        for r in (0, 127, 128, 149):
            index = np.repeat(np.arange(300), resamples.counts_RN[r])
            slow = metric.value(rows(student, index), labels[index], rows(teacher, index))
            assert vectorized[r] == pytest.approx(slow, rel=1e-10, abs=1e-13), metric.name


def test_draws_are_whole_samples_repeatable_and_named():
    def draw(root, part):
        return draw_resamples(50, root=root, part=part, num_resamples=20).counts_RN

    counts = draw(3, "validation")
    assert counts.shape == (20, 50)
    assert (counts.sum(axis=1) == 50).all()
    assert (counts == draw(3, "validation")).all()
    assert (counts != draw(4, "validation")).any()
    assert (counts != draw(3, "test")).any()


def test_nothing_is_drawn_of_no_examples():
    with pytest.raises(DataError, match="found no examples"):
        draw_resamples(0, root=0, part="test")


def test_evaluation_covers_what_applies_and_holds_its_values(student, teacher, labels, resamples):
    measures = evaluate(student, labels, teacher, resamples=resamples)
    assert set(measures) == {Key(name) for name in ALWAYS}
    without = {key.metric for key, measured in measures.items() if measured.interval is None}
    assert without == {"ece", "worst_recall"}
    for key, measured in measures.items():
        assert measured.n == 300
        assert measured.value == METRICS[key.metric].value(student, labels, teacher)
        if key.metric in without:
            continue
        assert measured.low <= measured.value <= measured.high
        assert type(measured.value) is type(measured.low) is type(measured.high) is float


def test_metrics_that_are_asked_for_are_measured_beside_those_of_always(student, labels, resamples):
    name = "misclassification_auroc_total"
    unregistered = Metric("half", "minimize", "half", lambda p, y, t: np.full((300, 1), 0.5))
    measures = evaluate(student, labels, resamples=resamples, asked=[name, unregistered])
    plain = evaluate(student, labels, resamples=resamples)

    assert measures.keys() - plain.keys() == {Key(name), Key("half")}
    assert measures[Key("half")].value == 0.5
    assert measures[Key("nll")] == plain[Key("nll")]
    with pytest.raises(RegistryError, match="unknown metric 'nil'; did you mean 'nll'"):
        evaluate(student, labels, resamples=resamples, asked=["nil"])


def test_labels_that_say_what_is_from_outside_are_judged_by_metrics_of_these(student, resamples):
    labels = np.repeat([0, 1], 150)
    asked = ["ood_auroc_total", "misclassification_auroc_total"]
    measures = evaluate(student, labels, resamples=resamples, asked=asked, task="ood")
    assert set(measures) == {Key("ood_auroc_total")}


def test_a_metric_of_all_terms_is_left_out_of_by_each_example(student, labels):
    """Its pseudo-values by leaving out each example, beside the closed form of a mean."""
    by_sums = METRICS["brier"]
    terms = by_sums.terms(student, labels, None)
    whole = Metric("w", "minimize", "w", by_sums.terms, whole=lambda terms: terms.mean())
    assert whole.pseudo_values(terms) == pytest.approx(by_sums.pseudo_values(terms))
    with pytest.raises(RegistryError, match="found combine and whole, expected one"):
        Metric("w", "minimize", "w", by_sums.terms, whole=np.mean, combine=lambda sums, n: sums)


def test_a_metric_without_a_value_says_why(resamples):
    labels = np.repeat([0, 1, 2, 3], 75)
    sure = Predictions(np.log(np.eye(4)[labels] * 0.9 + 0.025))
    asked = ["misclassification_auroc_total"]
    measured = evaluate_or_explain(sure, labels, resamples=resamples, asked=asked)[Key(asked[0])]
    assert measured.value is None and measured.why.startswith("no example is wrong")
    with pytest.raises(DivergenceError, match="'misclassification_auroc_total' is nan.*no example"):
        evaluate(sure, labels, resamples=resamples, asked=asked)


def test_metrics_that_read_what_is_absent_are_left_out(student, teacher, labels, resamples):
    alone = {"accuracy", "nll", "brier", "ece", "ece_debiased"}
    alone |= {"balanced_accuracy", "macro_f1", "worst_recall"}
    compared = alone | {"agreement", "kl_to_teacher", "nll_above_teacher"}
    no_entropy = Predictions(student.log_prob_NC)
    blind_teacher = Predictions(teacher.log_prob_NC)

    def measured(*arguments):
        return {key.metric for key in evaluate(*arguments, resamples=resamples)}

    assert measured(student, labels) == alone
    assert measured(student, labels, blind_teacher) == compared
    assert measured(no_entropy, labels, teacher) == compared | {"entropy_excess"}


def test_measures_say_under_which_condition_and_on_which_part(student, labels, resamples):
    plain = evaluate(student, labels, resamples=resamples)
    other = evaluate(student, labels, resamples=resamples, condition="permuted", part="test")
    assert list(other) == [Key(key.metric, "permuted", "test") for key in plain]
    assert list(other.values()) == list(plain.values())


def test_intervals_of_a_mean_cover_the_truth_at_their_rate():
    # 400 data sets of 200 calibrated predictions with top probability uniform on [1/2, 1]; the true
    # NLL is their mean entropy. Four standard errors of a share of 400 near 95 % are 4 sqrt(.95 *
    # .05 / 400) = 4.4 %, so intervals of 90 % or 99.5 % are seen.
    resamples = draw_resamples(200, root=1, part="validation", num_resamples=400)
    generator = np.random.default_rng(7)
    grid = (np.arange(100_000) + 0.5) / 200_000 + 0.5
    truth = -(grid * np.log(grid) + (1 - grid) * np.log(1 - grid)).mean()

    num_covered = 0
    for _ in range(400):
        top = generator.uniform(0.5, 1.0, 200)
        labels = (generator.random(200) > top).astype(np.int64)
        predictions = Predictions(np.log(np.c_[top, 1 - top]))
        nll = evaluate(predictions, labels, resamples=resamples)[Key("nll")]
        num_covered += nll.low <= truth <= nll.high
    assert 0.906 < num_covered / 400 < 0.994


def test_interval_width_of_a_mean_is_that_of_its_standard_error(student, labels, resamples):
    # 2 * 1.96 * sd / sqrt(n); 1000 resamples know a 2.5 % quantile's distance to about 6 %.
    low, high = evaluate(student, labels, resamples=resamples)[Key("brier")].interval
    sd = METRICS["brier"].terms(student, labels, None).std()
    assert high - low == pytest.approx(2 * 1.96 * sd / np.sqrt(300), rel=0.12)


def test_paired_intervals_are_narrower_than_unpaired_ones(student, labels, resamples):
    nudged = Predictions(student.log_prob_NC - 0.05 * np.random.default_rng(3).random((300, 4)))
    paired = paired_difference("nll", nudged, student, labels, resamples=resamples)
    low, high = paired.interval
    nll = METRICS["nll"]
    assert paired.value == pytest.approx(nll.value(nudged, labels) - nll.value(student, labels))
    assert paired.n == 300
    assert low <= paired.value <= high

    for predictions in (nudged, student):
        unpaired = evaluate(predictions, labels, resamples=resamples)[Key("nll")]
        assert high - low < 0.1 * (unpaired.high - unpaired.low)
    assert low > 0


@pytest.mark.parametrize("metric", ["brier", "accuracy"])
def test_a_paired_difference_flips_with_its_arguments(metric, student, teacher, labels, resamples):
    forth = paired_difference(metric, student, teacher, labels, resamples=resamples)
    back = paired_difference(metric, teacher, student, labels, resamples=resamples)
    assert forth.value == -back.value
    assert forth.interval == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert forth.p_value == back.p_value


def test_what_does_not_differ_has_no_interval(student, labels, resamples):
    same = paired_difference("brier", student, student, labels, resamples=resamples)
    assert (same.value, same.interval) == (0.0, None)
    assert same.why == "all 300 examples give the same: their spread is not known"

    # Of a share nothing must be known but how many examples there were.
    same = paired_difference("accuracy", student, student, labels, resamples=resamples)
    assert same.interval == pytest.approx((-0.01264, 0.01264), abs=1e-5)  # 3.84 / (300 + 3.84)
    assert same.p_value == 1.0


def test_differences_of_calibration_errors_have_no_interval(student, teacher, labels, resamples):
    for metric in ("ece", "ece_debiased"):
        paired = paired_difference(metric, student, teacher, labels, resamples=resamples)
        assert paired.interval is None
        assert paired.why


def test_paired_differences_refuse_what_they_cannot_compute(student, labels, resamples):
    with pytest.raises(DataError, match="'kl_to_teacher'.*absent"):
        paired_difference("kl_to_teacher", student, student, labels, resamples=resamples)
    with pytest.raises(RegistryError, match="did you mean 'nll'"):
        paired_difference("nl", student, student, labels, resamples=resamples)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_metric_that_is_not_finite_is_refused_by_name(value, student, labels, resamples):
    log_prob = student.log_prob_NC.copy()
    log_prob[7, labels[7]] = value
    broken = Predictions(log_prob)
    with pytest.raises(DivergenceError, match="metric '(accuracy|nll)' is (nan|inf)"):
        evaluate(broken, labels, resamples=resamples)
    with pytest.raises(DivergenceError, match="metric 'nll' is (nan|inf)"):
        paired_difference("nll", student, broken, labels, resamples=resamples)


def test_what_is_not_finite_of_a_reference_is_none_and_says_why(student, labels, resamples):
    log_prob = student.log_prob_NC.copy()
    log_prob[[7, 9], labels[[7, 9]]] = -np.inf
    reference = Predictions(log_prob)
    measures = evaluate_or_explain(reference, labels, resamples=resamples)

    nll = measures[Key("nll")]
    assert (nll.value, nll.interval, nll.n) == (None, None, 300)
    assert nll.why == "it is infinite: 2 of 300 examples have no finite term"
    public = to_public(measures)
    assert public["metrics"]["nll"] is None and "nll" not in public["intervals"]
    assert from_public(**public) == measures

    # the others are as they would be without it, to the bit
    finite = evaluate(student, labels, resamples=resamples)
    sure_N = np.delete(np.arange(300), [7, 9])
    assert measures[Key("accuracy")].value == METRICS["accuracy"].value(reference, labels)
    assert list(measures) == list(finite)
    assert (student.log_prob_NC[sure_N] == reference.log_prob_NC[sure_N]).all()


def test_a_teacher_without_a_finite_value_fails_no_student(student, labels, resamples):
    log_prob = student.log_prob_NC.copy()
    log_prob[7, labels[7]] = -np.inf
    teacher = Predictions(log_prob)
    measures = evaluate(student, labels, teacher, resamples=resamples)
    above = measures.pop(Key("nll_above_teacher"))
    assert above.value is None and "1 of 300 examples" in above.why
    assert all(measured.value is not None for measured in measures.values())
    assert finite_values({Key("nll_above_teacher"): above}) == {}

    # the student's own is its own, also beside such a teacher
    with pytest.raises(DivergenceError, match="metric 'nll' is inf"):
        evaluate(teacher, labels, teacher, resamples=resamples)
    with pytest.raises(DivergenceError, match="metric 'kl_to_teacher' is inf"):
        certain = Predictions(np.where(np.arange(4) == labels[:, None], 0.0, -np.inf))
        evaluate(certain, labels, student, resamples=resamples)


def test_sizes_that_do_not_fit_are_refused(student, teacher, labels, resamples):
    short = rows(teacher, slice(0, 200))
    refused = (
        ((student, labels[:200]), "labels: found int64"),
        ((student, labels.astype(float)), "expected 300 integers"),
        ((student, labels + 1), "found 1 to 4, expected 0 to 3"),
        ((student, labels - 1), "found -1 to 2"),
        ((short, labels[:200]), "drawn for 300 examples, expected 200"),
        ((student, labels, short), "teacher: found probabilities of shape"),
    )
    for arguments, message in refused:
        with pytest.raises(DataError, match=message):
            evaluate(*arguments, resamples=resamples)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="log_prob_NC: found shape"):
        Predictions(np.zeros(3))
    with pytest.raises(DataError, match=r"expectations\['utility'\]: found shape \(2, 1\)"):
        Predictions(np.zeros((3, 2)), {"utility": np.zeros(2)})


def test_predictions_are_kept_in_float64():
    log_prob = np.zeros((3, 2), np.float32)
    predictions = Predictions(log_prob, {"expected_entropy": np.zeros(3, np.float32)})
    assert predictions.log_prob_NC.dtype == predictions.expected_entropy_N.dtype == np.float64
    assert len(predictions) == 3


def test_bootstrap_is_small_and_quick_for_a_whole_test_part():
    student = random_predictions(0, 10_000, 10)
    teacher = random_predictions(1, 10_000, 10)
    labels = np.random.default_rng(2).integers(10, size=10_000)
    resamples = draw_resamples(10_000, root=0, part="test")
    assert resamples.counts_RN.nbytes == 10_000_000
    assert isinstance(resamples, Resamples) and len(resamples) == 1000 and resamples.n == 10_000

    # It takes about 0.1 s.
    start = time.perf_counter()
    evaluate(student, labels, teacher, resamples=resamples)
    assert time.perf_counter() - start < 3.0


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            lambda p, y, t: p.expectations["margin"],
            r"raised KeyError: 'margin'; .* names in reads=",
        ),
        (lambda p, y, t: t.log_prob_NC, r"raised AttributeError: .* with needs_teacher=True"),
        (
            lambda p, y, t: np.exp(p.log_prob_NC[:, 0]),
            r"\(300,\), expected .* \(300, T\); .*None\]",
        ),
        (lambda p, y, t: np.ones((2, 1)), r"shape \(2, 1\), expected a row an example"),
        (lambda p, y, t: None, r"shape \(\), expected a row an example"),
        (lambda p, y, t: [[1.0], [1.0, 2.0]] * 150, "raised ValueError"),
    ],
)
def test_a_metric_whose_function_is_wrong_is_named(student, labels, terms, message):
    metric = Metric("broken", "minimize", "broken", terms)
    with pytest.raises(RegistryError, match=rf"^metric 'broken': .*{message}"):
        metric.value(student, labels)


@pytest.mark.parametrize(
    ("combine", "message"),
    [
        (lambda sums, n: sums[:, 1], r"raised IndexError: .*; mend combine="),
        (lambda sums, n: sums / n, r"made shape \(1, 1\) of 1 rows .* for each, \(1,\)"),
        (lambda sums, n: None, r"made shape \(\) of 1 rows"),
    ],
)
def test_a_metric_that_combines_its_sums_wrongly_is_named(student, labels, combine, message):
    metric = Metric("broken", "minimize", "broken", lambda p, y, t: y[:, None], combine)
    with pytest.raises(RegistryError, match=rf"^metric 'broken': .*{message}"):
        metric.value(student, labels)


def test_terms_may_be_plain_rows(student, labels):
    metric = Metric("plain", "minimize", "plain", lambda p, y, t: [[0.5]] * len(y))
    assert metric.value(student, labels) == 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_gap", "does not begin with 'test_'"),
        ("gap@clean", "holds no '@'"),
        ("params", "a cost is called so"),
    ],
)
def test_a_metric_has_a_name_that_nothing_else_can_have(name, message):
    with pytest.raises(RegistryError, match=message):
        Metric(name, "minimize", "a label", lambda predictions, labels_N, teacher: labels_N)
