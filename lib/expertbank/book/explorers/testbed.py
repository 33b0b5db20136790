"""The scene of the part *Real routers*: the scope of balancing against what it leaves."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from expertbank.book.explorers.common import FIRST, FOURTH, LIMIT, SECOND, THIRD, with_stops
from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.scene import Axis, Mark, Panel, Reading, Scene, Series, Track
from expertbank.routers.measures import group_entropy
from expertbank.shipped.testbed import TestbedRuns, load_testbed

STEP_SEQUENCES = 64
DOMAINS = 8
METHOD_LOOK = {"LBL": FIRST, "SH": SECOND, "BA": THIRD, "EB": FOURTH, "none": LIMIT}


def explore_testbed(runs: TestbedRuns | None = None, mix: str = "scripts") -> Explorer:
    """I(D;T) of the uncapped runs on one mix of eight languages against the scope of balancing,
    under the limit of the scope theorem, by scope and by how uneven the load is within a group."""
    table = (load_testbed() if runs is None else runs).columns(mix=mix, capacity=None)
    scope_of = table["scope"]
    informed = table["domain_information"]
    method_of = table["method"]
    learned = np.isin(method_of, list(METHOD_LOOK))
    scopes = np.arange(1, STEP_SEQUENCES + 1, dtype=float)
    even = np.array([group_entropy(int(s), STEP_SEQUENCES, DOMAINS) for s in scopes])
    most = float(np.log(DOMAINS))
    x_axis = Axis("scope of balancing, sequences", 0.9, 1.15 * STEP_SEQUENCES, "log")
    y_axis = Axis("I(D;T), what an expert tells about the language, nats", 0, 1.05 * most)
    # a limit is drawn smoothly through whole scopes
    places = np.unique(np.append(np.geomspace(1, STEP_SEQUENCES, 121), scopes))
    smooth = PchipInterpolator(np.log(scopes), even)(np.log(places))
    limit = Series("limit, load even in every group", places, smooth, look=LIMIT)
    dots = []
    for method, look in METHOD_LOOK.items():
        own = method_of == method
        dots.append(Series(f"runs of {method}", scope_of[own], informed[own], "dots", look))

    def scene(scope: float, unevenness: float = 0.0) -> Scene:
        lifted = np.minimum(smooth + unevenness, most)
        mixed = float(even[int(scope) - 1])
        allowed = min(mixed + unevenness, most)
        here = learned & (scope_of <= scope)
        ring = Mark("limit at this scope", scope, allowed)
        series = [limit, Series("limit with this unevenness", places, lifted, look=SECOND), *dots]
        readings = [
            Reading("languages mixed in a group H(D|G)", mixed, 3, "nats"),
            Reading("limit on I(D;T)", allowed, 3, "nats"),
            Reading("share of all there is to tell", 100 * allowed / most, 0, "%"),
            Reading("runs balanced this narrowly", here.sum(), 0),
            Reading("most that one of them tells", informed[here].max(), 3, "nats"),
            Reading("runs above this limit", (informed[here] > allowed).sum(), 0),
        ]
        track = Track("scope", scopes, scopes, np.minimum(even + unevenness, most))
        return Scene([Panel(x_axis, y_axis, series, [ring], track)], readings)

    alt = (
        "I(D;T) of trained routers as dots against the scope of balancing on a logarithmic axis. A "
        "curve, the limit for even loads, rises from zero at one sequence to log 8; most dots lie "
        "below it. A ring marks the chosen scope."
    )
    unevenness = with_stops(np.arange(51) / 25)
    dials = {
        "scope": Dial("scope, sequences", 8, scopes.tolist(), (1, STEP_SEQUENCES, 1)),
        "unevenness": Dial(
            "unevenness log E − H(T|G)", 0, unevenness, (0.0, 2.0, 0.01), unit="nats"
        ),
    }
    return Explorer("testbed", scene, dials, alt)
