"""The scene of the start page: what a nat of routing buys."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from expertbank.book.explorers.banks import drawn_curve, point_at, supporting_line
from expertbank.book.explorers.common import FIRST, SECOND, THIRD, with_stops
from expertbank.book.explorers.explorer import Dial, Explorer
from expertbank.book.explorers.scene import Axis, Mark, Panel, Reading, Scene, Series, Track
from expertbank.gates import route_by_estimate
from expertbank.rate_distortion import RateDistortionCurve, rate_distortion_curve
from expertbank.shipped.bank import ExpertBank, load_bank
from expertbank.shipped.gates import GateSweep, load_gates
from expertbank.tables import Table, table_of

# a page has room for a few of them beside its two fine dials
NUMBERS_OF_EXPERTS = (2, 4, 8)


def copying(table: np.ndarray, best: int, percent: float) -> np.ndarray:
    """Losses (N, R) of experts that answer as the one at `best` on so many percent of the inputs.

    >>> copying(np.array([[0.0, 1.0]]), best=0, percent=20).tolist()
    [[0.0, 0.8]]
    """
    return table + percent / 100 * (table[:, [best]] - table)


class _Nats:
    """What routing buys on the first images of a bank, in percent, for its first experts, of which
    each copies the best one now and then."""

    def __init__(self, bank: ExpertBank, sweep: GateSweep, n_images: int) -> None:
        self.losses = bank.losses("test")[:n_images].astype(float)
        guessed = sweep.voted(bank.name)[:n_images]
        wrong = bank.predictions("test")[:n_images] != guessed[:, None]
        self.wrong_by_guess = wrong.astype(float)
        self.lams = with_stops(np.geomspace(0.01, 10, 51), 0.2, 0.5)
        few = [number for number in NUMBERS_OF_EXPERTS if number < bank.n_experts]
        self.numbers = [float(number) for number in (*few, bank.n_experts)]
        self.along = lru_cache(maxsize=256)(self._along)
        fewest = self.along(self.numbers[0], 0)[1]
        most = self.along(self.numbers[-1], 0)[1]
        self.x = Axis("routing: nats per image", 0, 1.1 * float(most.rate.max()))
        self.y = Axis("images answered wrongly, %", 0, 110 * fewest.ceiling)

    def _along(
        self, n_experts: float, copied: float
    ) -> tuple[Table, RateDistortionCurve, list[Series], Track]:
        k = int(n_experts)
        own = self.losses[:, :k]
        best = int(own.mean(axis=0).argmin())
        losses = copying(own, best, copied)
        table = table_of(losses)
        curve = rate_distortion_curve(table, self.lams)
        guesses = copying(self.wrong_by_guess[:, :k], best, copied)
        voted = route_by_estimate(guesses, losses, self.lams)
        seen = drawn_curve(curve)
        sees_x = (np.append(0, voted.rate), 100 * np.append(voted.ceiling, voted.loss))
        series = [
            Series("the best gate there is: D(R)", seen.x, 100 * np.asarray(seen.y), look=FIRST),
            Series("a gate that sees only the image", *sees_x, look=SECOND),
        ]
        return (
            table,
            curve,
            series,
            Track("lam", np.array(self.lams), curve.rate, 100 * curve.distortion),
        )

    def scene(self, lam: float, copied: float, n_experts: float) -> Scene:
        table, curve, series, track = self.along(n_experts, copied)
        point = point_at(table, curve, self.lams, lam)
        x, y = supporting_line(point, self.x.high)
        y = np.minimum(100 * y, self.y.high)
        line = Series("what one more nat would buy here", x, y, look=THIRD)
        ring = Mark("gate at this price", point.rate, 100 * point.distortion)
        # experts that only copy leave nothing to save
        room = max(curve.ceiling - curve.floor, 1e-12)
        saved = (curve.ceiling - point.distortion) / room
        readings = [
            Reading("routing per image", point.rate, 3, "nats"),
            Reading("answered wrongly", 100 * point.distortion, 1, "%"),
            Reading("by the best single expert", 100 * curve.ceiling, 1, "%"),
            Reading("where every expert is wrong", 100 * curve.floor, 1, "%"),
            Reading("of what routing can save", 100 * saved, 0, "%"),
        ]
        return Scene([Panel(self.x, self.y, [*series, line], [ring], track)], readings)


def explore_start(
    bank: ExpertBank | None = None, sweep: GateSweep | None = None, n_images: int = 2000
) -> Explorer:
    """D(R) of the MNIST bank by price, by how often its experts copy the best of them and by how
    many they are, beside gates that see only the image: they believe a label voted by similar
    images."""
    bank = load_bank() if bank is None else bank
    nats = _Nats(bank, load_gates() if sweep is None else sweep, n_images)
    most = bank.n_experts
    copied = (2.0 * np.arange(51)).tolist()
    alt = (
        "Images answered wrongly against nats of routing per image: a curve falls steeply from the "
        "best single expert and levels off where all experts are wrong. A ring on it marks the "
        "chosen price of a nat; a second, higher line is a gate that sees only the image."
    )
    dials = {
        "lam": Dial("price of a nat, in errors", 0.5, nats.lams, (-2, 1, "log")),
        "copied": Dial(
            "answers copied from the best expert", 0, copied, (0.0, 100.0, 1.0), unit="%"
        ),
        "n_experts": Dial("experts in the bank", most, nats.numbers, (2, most, 1)),
    }
    return Explorer("start", nats.scene, dials, alt)
