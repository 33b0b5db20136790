"""Between which limits the frontier of gates lies that see an input x and not its label y. Nats.

D_x(R) is the least expected loss of gates p(t|x) with I(X;T) <= R. A loss table has one label for
every input and gives D(R), whose gate sees the label through the loss. D_x needs the law of y given
x, of which a table has one draw; what follows brackets it.

**Statement.** For 0-1 losses of experts that name a class f_t(x), let y*(x) be a most probable
class and e(x) = 1 - P(y*(x) | x) its Bayes error. Then

    E e(X) + D'(R) <= D_x(R) <= E e(X) + D''(R),

D' the curve of the table (1 - 2 e(x))_+ 1{f_t(x) != y*(x)}, D'' that of (1 - e(x)) 1{f_t(x) !=
y*(x)}. The two sides differ by at most E[min(e, 1 - e)]; with two classes the left is equal.

*Proof.* A gate that sees x pays P(f_t(x) != y | x), so D_x is the curve of that table. Where f_t
names y* it is e. Elsewhere it is 1 - P(f_t(x) | x), and P(f_t(x) | x) is at most 1 - P(y* | x) = e
and at most P(y* | x) = 1 - e: the loss is at least max(e, 1 - e) = e + (1 - 2e)_+, at most 1. A
curve grows with its table, and a constant that is added to a row adds its mean. With two classes
P(f_t(x) | x) is e itself, and e <= 1/2. The tables differ by min(e, 1 - e) at most.

*What does not hold.* The left side needs the law: with a smaller e in its place, or another class
for y*, it may lie above D_x. An estimate of e gives a bound for the law that was estimated, and for
no other. Without a law the only lower limit is D(R) itself.

**From above** no law is needed: `certified_routes` takes gates that see only x, and limits their
loss and rate on new inputs with a stated confidence, whatever the estimates that they route by.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike

from expertbank._checks import as_count, as_interval, as_losses, as_number
from expertbank.bounds import binary_kl_inverse
from expertbank.gates import RoutedByEstimate
from expertbank.rate_distortion import rate_distortion_curve, routing


def losses_given_input(predictions: ArrayLike, chances: ArrayLike) -> np.ndarray:
    """P(f_t(x) != y | x) (N, R) from classes named (N, R) and the law of the class (N, C).

    Its D(R) is D_x(R) for that law. Raises ValueError for classes outside 0 .. C - 1 and for rows
    of another length or that do not sum to 1.

    >>> losses_given_input([[0, 1]], chances=[[0.75, 0.25]]).tolist()
    [[0.25, 0.75]]
    """
    chances = np.asarray(as_interval(chances, "chances", 0, 1))
    predictions = _classes(predictions, chances)
    if np.abs(chances.sum(axis=1) - 1).max() > 1e-6:
        raise ValueError("chances have a row that does not sum to 1; each is a law on the classes")
    return 1 - np.take_along_axis(chances, predictions, axis=1)


def bayes_floor(predictions: ArrayLike, likeliest: ArrayLike, bayes_error: ArrayLike) -> np.ndarray:
    """The table (N, R) of e(x) + (1 - 2 e(x))_+ 1{f_t(x) != y*(x)}, whose D(R) is at most D_x(R).

    `predictions` (N, R) are the classes named, `likeliest` (N,) the most probable one, and
    `bayes_error` (N,) the chance that it is wrong. All three are of the law itself; see the
    module's text for what an estimate does. Raises ValueError where shapes differ or errors are
    outside [0, 1].

    Where the label is a coin of bias e, no gate loses less than e:

    >>> bayes_floor([[0, 1]], likeliest=[0], bayes_error=[0.25]).tolist()
    [[0.25, 0.75]]
    """
    predictions = np.asarray(predictions)
    likeliest = np.asarray(likeliest)
    error = np.asarray(as_interval(bayes_error, "bayes_error", 0, 1))
    if predictions.ndim != 2 or not likeliest.shape == error.shape == predictions.shape[:1]:
        raise ValueError(
            f"predictions have shape {predictions.shape}, likeliest {likeliest.shape}, bayes_error "
            f"{error.shape}; allowed are (N, R), (N,) and (N,)"
        )
    wrong = predictions != likeliest[:, None]
    return error[:, None] + np.maximum(1 - 2 * error, 0)[:, None] * wrong


def chances_from_votes(
    predictions: ArrayLike, known_predictions: ArrayLike, known_labels: ArrayLike
) -> np.ndarray:
    """An estimate (N, C) of P(y | x) from the classes (N, R) that the experts name.

    Each expert's confusions are counted on inputs of known label, (N', R) and (N',); their
    logarithms are summed as if experts erred apart from each other, with a weight each, fitted on
    the same inputs, which takes back what they have in common. A guess of the label from elsewhere
    is a column like any other. Raises ValueError for labels that do not fit.

    >>> known = [[0, 0], [0, 1], [1, 1], [1, 0]] * 25
    >>> chances_from_votes([[0, 0], [1, 0]], known, [0, 0, 1, 1] * 25).round(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    known_labels = np.asarray(known_labels)
    known_predictions = np.asarray(known_predictions)
    if known_predictions.ndim != 2 or known_labels.shape != known_predictions.shape[:1]:
        raise ValueError(
            f"known_labels have shape {known_labels.shape}, known_predictions "
            f"{known_predictions.shape}; allowed are (N,) and (N, R)"
        )
    predictions = np.asarray(predictions)
    if predictions.ndim != 2 or predictions.shape[1] != known_predictions.shape[1]:
        raise ValueError(
            f"predictions have shape {predictions.shape}; "
            f"allowed is (N, {known_predictions.shape[1]}), as known_predictions have experts"
        )
    n_classes = 1 + int(max(known_labels.max(), known_predictions.max(), predictions.max()))
    experts = np.arange(known_predictions.shape[1])
    # named, label: each once, so that none is 0
    confused = np.ones((len(experts), n_classes, n_classes))
    np.add.at(confused, (experts, known_predictions, known_labels[:, None]), 1)
    evidence = np.log(confused / confused.sum(axis=1, keepdims=True))
    prior = np.log(1.0 + np.bincount(known_labels, minlength=n_classes))
    said = evidence[experts, known_predictions]  # (N', R, C)
    truth = said[np.arange(len(said)), :, known_labels]

    def surprise(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean of -log P(label), and its slope."""
        laws = scipy.special.log_softmax(prior + weights @ said, axis=1)
        meant = np.einsum("nc,nrc->r", np.exp(laws), said) - truth.sum(axis=0)
        return -laws[np.arange(len(said)), known_labels].mean(), meant / len(said)

    start = np.full(len(experts), 1 / len(experts))
    weights = scipy.optimize.minimize(surprise, start, jac=True, method="L-BFGS-B").x
    return scipy.special.softmax(prior + weights @ evidence[experts, predictions], axis=1)


def certified_routes(
    known_estimates: ArrayLike,
    estimates: ArrayLike,
    losses: ArrayLike,
    lams: ArrayLike,
    confidence: float = 0.95,
) -> RoutedByEstimate:
    """Gates that see x, with limits on their loss and rate that hold for the law of the inputs.

    For each price in `lams` D(R) of `known_estimates` (N', R) gives a marginal q, and on N other
    inputs, `estimates` (N, R), the gate is p(t|x) proportional to q_t exp(-estimate/lam). With the
    stated confidence, for all prices at once, its expected loss is at most `loss`, by Chernoff's
    bound on the mean of `losses` (N, R) in [0, 1], and I(X;T) <= E KL(p(.|X) || q) at most `rate`,
    by the empirical Bernstein bound of Maurer & Pontil (2009). So D_x lies below the line through
    them, as it is convex. Nothing is assumed of the estimates but that they were made without the
    labels of the N inputs, which are i.i.d. `hoped` is the mean loss without the limit. Raises
    ValueError for tables that do not fit and a confidence outside (0, 1).

    >>> losses = np.array([[0, 1], [1, 0]] * 500)
    >>> found = certified_routes(losses, losses, losses, lams=[0.1])
    >>> float(found.loss[0].round(3)), float(found.rate[0].round(3))
    (0.004, 0.7)
    """
    known_estimates, estimates, losses = _tables(known_estimates, estimates, losses)
    confidence = as_number(confidence, "confidence", 0, 1)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence:g}; allowed is a number between 0 and 1")
    n = len(losses)
    curve = rate_distortion_curve(known_estimates, np.sort(np.asarray(lams, dtype=float))[::-1])
    # a loss and a rate at each price, and the loss of the expert that looks best
    log_chance = np.log((2 * len(curve.lam) + 1) / (1 - confidence))
    paid = []
    rates = []
    for index in range(len(curve.lam)):
        point = curve.point(index)
        gate = routing(estimates, point)
        paid.append((gate * losses).sum() / n)
        told = scipy.special.rel_entr(gate, point.marginal).sum(axis=1)
        # no row tells more than its least likely expert, nor than its spread of losses buys
        least = point.marginal[point.marginal > 0].min()
        most = min(-np.log(least), np.ptp(estimates) / point.lam)
        rates.append(_bernstein(told, float(most), log_chance))
    alone = losses[:, known_estimates.mean(axis=0).argmin()].mean()
    *limits, ceiling = binary_kl_inverse(np.minimum([*paid, alone], 1), log_chance / n)
    return RoutedByEstimate(
        curve.lam, np.array(rates), np.array(limits), np.array(paid), float(ceiling)
    )


def _tables(known_estimates, estimates, losses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    known_estimates = as_losses(known_estimates, "known_estimates")
    estimates = as_losses(estimates, "estimates")
    losses = np.asarray(as_interval(as_losses(losses), "losses", 0, 1))
    if estimates.shape != losses.shape or known_estimates.shape[1] != losses.shape[1]:
        raise ValueError(
            f"known_estimates have shape {known_estimates.shape}, estimates {estimates.shape}, "
            f"losses {losses.shape}; allowed are (N', R), (N, R) and (N, R)"
        )
    as_count(len(losses), "the number of inputs", 2)
    return known_estimates, estimates, losses


def _bernstein(values: np.ndarray, most: float, log_chance: float) -> float:
    """A limit on the mean of i.i.d. values (N,) in [0, most], wrong with exp(-log_chance)."""
    n = len(values)
    nats = log_chance + np.log(2)
    varied = np.sqrt(2 * values.var(ddof=1) * nats / n)
    return float(values.mean() + varied + 7 * most * nats / (3 * (n - 1)))


def _classes(predictions: ArrayLike, chances: np.ndarray) -> np.ndarray:
    predictions = np.asarray(predictions)
    if (
        predictions.ndim != 2
        or chances.ndim != 2
        or len(predictions) != len(chances)
        or predictions.min() < 0
        or predictions.max() >= chances.shape[1]
    ):
        raise ValueError(
            f"predictions have shape {predictions.shape}, chances {chances.shape}; allowed are "
            "(N, R) of classes 0 .. C - 1 and (N, C)"
        )
    return predictions
