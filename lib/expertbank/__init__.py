"""Finite-rate expert routing: information, distortion-rate curves and generalisation bounds for
expert banks.

Everything starts from a loss table: an (N, R) array of the loss of each of R experts on each of N
inputs. All information quantities are in nats. What stands here needs NumPy and SciPy alone.

>>> losses = [[0, 1, 1], [1, 0, 1], [1, 0, 0]]
>>> curve = rate_distortion_curve(losses)
>>> curve.floor, round(curve.ceiling, 4)  # the best expert for every input, and the best for all
(0.0, 0.3333)
>>> round(distortion_at_rate(losses, rate=0.3), 4)  # what 0.3 nats of routing reach
0.1053
"""

from expertbank.bounds import theorem2_bound, union_bound, xu_raginsky_bound
from expertbank.channels import bsc_distortion_rate, bsc_rate
from expertbank.information import (
    algorithmic_information,
    binary_entropy,
    binary_entropy_inverse,
    bootstrap_interval,
    entropy,
    gating_rate,
    information_estimates,
    kl_divergence,
    mutual_information,
)
from expertbank.ladder import bound_ladder
from expertbank.learners import (
    alpha_mixture,
    epsilon_greedy,
    gibbs_posterior,
    simulate,
    top_k_uniform,
)
from expertbank.rate_distortion import (
    critical_lambda,
    distortion_at_rate,
    rate_distortion,
    rate_distortion_curve,
    routing,
)
from expertbank.selection_theory import gaussian_selection
from expertbank.shipped.bank import ExpertBank, load_bank, load_family
from expertbank.tables import open_table
from expertbank.uncertainty import accuracy_rate_cost, curve_bootstrap, split_optimism

__all__ = [
    "ExpertBank",
    "accuracy_rate_cost",
    "algorithmic_information",
    "alpha_mixture",
    "binary_entropy",
    "binary_entropy_inverse",
    "bootstrap_interval",
    "bound_ladder",
    "bsc_distortion_rate",
    "bsc_rate",
    "critical_lambda",
    "curve_bootstrap",
    "distortion_at_rate",
    "entropy",
    "epsilon_greedy",
    "gating_rate",
    "gaussian_selection",
    "gibbs_posterior",
    "information_estimates",
    "kl_divergence",
    "load_bank",
    "load_family",
    "mutual_information",
    "open_table",
    "rate_distortion",
    "rate_distortion_curve",
    "routing",
    "simulate",
    "split_optimism",
    "theorem2_bound",
    "top_k_uniform",
    "union_bound",
    "xu_raginsky_bound",
]
