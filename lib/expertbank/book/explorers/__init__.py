"""Explorers: sliders around pure library functions. One function a chapter, each returning one
widget.

An explorer comes in two kinds. With `live=True` it asks the kernel and takes any value. With
`live=False` it holds prerendered frames, one for each pair of values, and its sliders choose among
them in the browser: a page without a kernel can do that. By default it is live, except while the
book is being built.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from PIL import Image

from expertbank.book import figures
from expertbank.bounds import xu_raginsky_bound
from expertbank.channels import (
    ldp_rate_cap,
    ldp_sharp_cap,
    randomised_response,
    symmetric_capacity,
    symmetric_channel,
)
from expertbank.information import gating_rate, mutual_information
from expertbank.ladder import LadderExperiment
from expertbank.learners import alpha_mixture, empirical_risks, select
from expertbank.privacy import least_loss_mechanism, routed_loss
from expertbank.rate_distortion import (
    RateDistortionCurve,
    rate_distortion,
    rate_distortion_curve,
    routing,
)
from expertbank.shipped.bank import ExpertBank
from expertbank.shipped.gates import GATE_FAMILIES, GateSweep
from expertbank.synthetic import alpha_curve, bsc_selection

PIXELS_PER_INCH = 120
FRAME_WIDTH = 6.4  # inches
COLOURS = 24  # of a palette frame: the lines' own and the steps of their smoothed edges


class Dial(NamedTuple):
    """One parameter of an explorer: where it starts, its values in frames, its (low, high, step)
    when live.

    Without `frames` it is there only with a kernel; without `live` the kernel offers the values of
    the frames. A step of "log" makes low and high powers of ten.
    """

    description: str
    start: float
    frames: Sequence[float] = ()
    live: tuple | None = None


def _explorer(
    scene: Callable, dials: dict[str, Dial], alt: str, live: bool | None
) -> ipywidgets.VBox:
    """Sliders over a picture that `scene` draws: scene(sheet, **the dials after the first) returns
    (figure, move).

    The figure is drawn once, on `sheet` where that is not None. move(value of the first dial) adds
    to it what this value changes, and returns these artists and the numbers to read beside the
    picture, as a dict of strings.
    """
    if live is None:
        live = "EXPERTBANK_FRAMES" not in os.environ
    if live:
        return _live(scene, dials, alt)
    return _framed(scene, dials, alt)


def _framed(scene: Callable, dials: dict[str, Dial], alt: str) -> ipywidgets.VBox:
    framed = {name: dial for name, dial in dials.items() if dial.frames}
    sliders = {name: _choice(dial) for name, dial in framed.items()}
    (first, inner), *second = framed.items()
    easel = _Easel(scene, alt)
    plain = ipywidgets.HTML()
    # one of each frame's own would be half of the state
    shared = {"style": plain.style, "layout": plain.layout}

    def row(**outer):
        paint = easel.painter(**outer)
        frames = [ipywidgets.HTML(paint(value), **shared) for value in inner.frames]
        return _stack(sliders[first], frames)

    if second:
        ((name, outer),) = second
        pictures = _stack(sliders[name], [row(**{name: value}) for value in outer.frames])
    else:
        pictures = row()
    return ipywidgets.VBox([*sliders.values(), pictures.add_class("explorer-frames")])


def _stack(slider: ipywidgets.SelectionSlider, children: Sequence) -> ipywidgets.Stack:
    """Shows the child that the slider points to, without asking a kernel."""
    stack = ipywidgets.Stack(children, selected_index=slider.index)
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    return stack


def _live(scene: Callable, dials: dict[str, Dial], alt: str) -> ipywidgets.VBox:
    sliders = {name: _slider(dial) for name, dial in dials.items()}
    first = next(iter(dials))
    picture = ipywidgets.HTML()
    painter = lru_cache(maxsize=8)(_Easel(scene, alt).painter)

    def update(_=None):
        values = {name: slider.value for name, slider in sliders.items()}
        value = values.pop(first)
        picture.value = painter(**values)(value)

    for slider in sliders.values():
        slider.observe(update, names="value")
    update()
    return ipywidgets.VBox([*sliders.values(), picture])


class _Easel:
    """Draws the scenes of one explorer as HTML, one after the other, on one figure and through one
    renderer.

    Setting up axes and rendering glyphs is most of the work, so later scenes find the axes of the
    first, have few ticks, and get a copy of its legend.
    """

    def __init__(self, scene: Callable, alt: str):
        self.scene = scene
        self.alt = alt
        self.sheet: Figure | None = None
        self.legends: list[Any] = []

    def painter(self, **outer: float) -> Callable[[float], str]:
        """A function from a value of the first dial to the HTML of its frame."""
        figure, move = self.scene(self.sheet, **outer)
        if self.sheet is None:
            self.set_up(figure)
        self.renderer.clear()
        figure.draw(self.renderer)
        for legend in self.legends:
            self.renderer.restore_region(legend)
        for ax in figure.axes:
            ax.set_autoscale_on(False)  # what is added later must not move the axes
        ground = self.renderer.copy_from_bbox(figure.bbox)
        limits = [{"xlim": ax.get_xlim(), "ylim": ax.get_ylim()} for ax in figure.axes]

        def paint(value: float) -> str:
            for ax, place in zip(figure.axes, limits):
                ax.set(**place)  # another scene may have come in between
            artists, numbers = move(value)
            self.renderer.restore_region(ground)
            for artist in artists:
                artist.draw(self.renderer)
                artist.remove()
            return self.html(numbers)

        return paint

    def set_up(self, figure: Figure) -> None:
        """Lay out the first scene for good, and keep its legend as it was drawn."""
        self.sheet = figure
        figure.set(dpi=PIXELS_PER_INCH, figwidth=FRAME_WIDTH)
        for axis in [*(ax.xaxis for ax in figure.axes), *(ax.yaxis for ax in figure.axes)]:
            locator = axis.get_major_locator()
            if isinstance(locator, MaxNLocator):
                locator.set_params(nbins=5)
        width, height = map(int, figure.bbox.size)
        self.renderer = RendererAgg(width, height, PIXELS_PER_INCH)
        layout = figure.get_layout_engine()
        assert isinstance(layout, ConstrainedLayoutEngine)
        layout.set(w_pad=0.17)  # room for longer tick labels of later scenes
        figure.draw(self.renderer)
        figure.set_layout_engine("none")
        for legend in figure.legends:
            place = legend.get_window_extent(self.renderer)
            self.legends.append(self.renderer.copy_from_bbox(place))
            legend.set_visible(False)

    def html(self, numbers: dict[str, str]) -> str:
        """What the renderer holds as a picture of few colours, and the numbers to read beside
        it."""
        image = Image.fromarray(np.asarray(self.renderer.buffer_rgba())).convert("RGB")
        buffer = io.BytesIO()
        few = image.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(buffer, "png")
        source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        read = "; ".join(f"{name} <b>{number}</b>" for name, number in numbers.items())
        shape = f'width="{image.width}" height="{image.height}"'
        style = 'style="max-width: 100%; height: auto"'
        picture = f'<img alt="{self.alt}" {shape} {style} decoding="sync" src="{source}">'
        return f'{picture}<p role="status">{read}</p>'


def _choice(dial: Dial) -> ipywidgets.SelectionSlider:
    """A slider over the values of the frames."""
    value = min(dial.frames, key=lambda frame: abs(frame - dial.start))
    options = [(f"{frame:.3g}" if frame < 100 else f"{frame:g}", frame) for frame in dial.frames]
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=dial.description, **WIDE_LABELS
    )


def _slider(dial: Dial) -> Any:
    """A slider over every value, for a kernel to answer."""
    if dial.live is None:
        return _choice(dial)
    low, high, step = dial.live
    kind = ipywidgets.FloatSlider
    if step == "log":
        kind = ipywidgets.FloatLogSlider
        step = 0.01
    elif isinstance(step, int):
        kind = ipywidgets.IntSlider
    start = {"value": dial.start, "description": dial.description}
    return kind(min=low, max=high, step=step, **start, **WIDE_LABELS)


# labels wide enough to read, on a phone too
WIDE_LABELS = {
    "style": {"description_width": "9em"},
    "layout": {"width": "32em", "max_width": "100%"},
}
ALPHAS = [i / 10 for i in range(11)]
MIXTURE = {
    "alpha": Dial("alpha", 0.7, ALPHAS, (0.0, 1.0, 0.01)),
    "sample_size": Dial("sample size m", 256, [16, 32, 64, 128, 256, 512, 1024], (8, 1024, 1)),
}


def _bounds(information: float, sample_size: int) -> dict[str, float]:
    """Theorem 1's bound by name of sigma."""
    sigmas = {"σ = 1": 1, "σ = 1/2": 0.5}
    return {
        name: float(xu_raginsky_bound(information, sample_size, sigma))
        for name, sigma in sigmas.items()
    }


def _read(bounds: dict[str, float]) -> dict[str, str]:
    return {f"bound with {name}": f"{value:.4f}" for name, value in bounds.items()}


# --- chapter 4: the alpha-mixture ---


def explore_alpha_mixture(
    pool, test, n_datasets: int = 500, live: bool | None = None
) -> ipywidgets.VBox:
    """The (information, gap) plane by alpha and sample size m; live also by how many candidates are
    in the bank."""
    n_candidates = pool.shape[1]

    def scene(sheet, sample_size, candidates=n_candidates):
        alphas = np.linspace(0, 1, 101)
        shown = pool[:, :candidates]
        fine = alpha_curve(shown, alphas, sample_size, n_datasets, test[:, :candidates])
        figure = figures.alpha_plane(fine, marked=(), every=5, onto=sheet)

        def move(alpha):
            at = int(np.abs(fine.alphas - alpha).argmin())
            information = fine.information[at]
            gap = fine.gap[at]
            bounds = _bounds(information, sample_size)
            numbers = {
                "I(S;W) =": f"{information:.3f} nats",
                "gap": f"{gap:.4f} ± {fine.gap_error[at]:.4f}",
                "on the separate test set": f"{fine.test_gap[at]:.4f}",
                **_read(bounds),
            }
            levels = list(bounds.values())
            return figures.pointer(figure.axes[0], information, gap, levels), numbers

        return figure, move

    alt = (
        "Generalisation gap against I(S;W): the alpha-mixture as dots, two bounds as curves above "
        "them. A ring marks the chosen alpha, and a line rises from it to the bounds."
    )
    candidates = Dial("candidates", n_candidates, live=(2, n_candidates, 1))
    return _explorer(scene, {**MIXTURE, "candidates": candidates}, alt, live)


# --- chapter 5: the binary symmetric channel ---


def explore_bsc(candidates, live: bool | None = None) -> ipywidgets.VBox:
    """The (rate, risk) plane of P1 experiment 2, exactly, by beta and sample size m; live also by
    the crossover p*."""
    betas = [0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1, 3, 10, 30]

    def scene(sheet, sample_size, crossover=0.2):
        points = [bsc_selection(candidates, crossover, sample_size, beta) for beta in betas]
        figure = figures.bsc_plane(betas, points, sample_size, onto=sheet)

        def move(beta):
            point = bsc_selection(candidates, crossover, sample_size, beta)
            term = float(xu_raginsky_bound(point.information, sample_size, sigma=1))
            side = "above" if point.excess > term else "below"
            numbers = {
                "I(S;W) =": f"{point.information:.3f} nats",
                "rate": f"{point.rate:.3f} nats",
                "mean risk": f"{point.risk:.4f}",
                "above D(R) by": f"{point.excess:.4f}",
                "term of (13)": f"{term:.4f}",
                f"{side} (13) by": f"{abs(point.excess - term):.4f}",
            }
            levels = [point.distortion, point.distortion + term]
            return figures.pointer(figure.axes[0], point.rate, point.risk, levels), numbers

        return figure, move

    alt = (
        "Mean risk against mean gating rate: the curve D(R), the learner's points for eleven "
        "inverse temperatures and the bound (13) at each. A ring marks the chosen one, and a line "
        "joins it to D(R) and to (13)."
    )
    dials = {
        "beta": Dial("beta", 1, betas, (-2, 1.5, "log")),
        "sample_size": Dial("sample size m", 100, [10, 25, 50, 100, 250, 1000, 2500], (5, 2500, 1)),
        "crossover": Dial("crossover p*", 0.2, live=(0.05, 0.45, 0.01)),
    }
    return _explorer(scene, dials, alt, live)


# --- chapter 6: the MNIST bank ---


def explore_mnist_bank(
    bank: ExpertBank, n_datasets: int = 1000, live: bool | None = None
) -> ipywidgets.VBox:
    """Gaps of an alpha-mixture over a bank, by alpha and sample size m, for both populations side
    by side."""
    pool = bank.losses("train")
    populations = {
        "the pool itself": pool.mean(axis=0),
        "test split (P2)": bank.losses("test").mean(axis=0),
    }

    def scene(sheet, sample_size):
        risks = empirical_risks(pool, sample_size, n_datasets, 0)

        @cache
        def runs(alpha):
            posteriors = alpha_mixture(risks, alpha)
            return {
                name: select(risks, posteriors, population, 1)
                for name, population in populations.items()
            }

        def bounds(alpha):
            return _bounds(runs(alpha)["the pool itself"].information, sample_size)

        ends = [run.gaps for alpha in (0.0, 1.0) for run in runs(alpha).values()]
        reach = 1.05 * max(bounds(1.0)["σ = 1"], *(np.abs(gaps).max() for gaps in ends))
        figure, bins = figures.gap_histogram(ends, reach, populations, onto=sheet)

        def move(alpha):
            found = runs(alpha)
            limits = bounds(alpha)
            numbers = {"I(S;W) =": f"{found['the pool itself'].information:.3f} nats"}
            for name, run in found.items():
                numbers[f"mean gap, population = {name}:"] = f"{run.gap:+.4f} ± {run.gap_error:.4f}"
            numbers |= _read(limits)
            gaps = [run.gaps for run in found.values()]
            return figures.gap_bars(figure.axes[0], gaps, bins, limits.values()), numbers

        return figure, move

    alt = (
        "Histograms of the gap over single runs, filled for the pool as population and outlined "
        "for the test split, with vertical lines at plus and minus the two bounds."
    )
    return _explorer(scene, MIXTURE, alt, live)


# --- chapter 7: Blahut-Arimoto curves ---


def explore_blahut_arimoto(
    curve: RateDistortionCurve, losses, live: bool | None = None
) -> ipywidgets.VBox:
    """Points of a curve by lambda: rate, loss, supporting line, the share of each expert. Live
    solves `losses` anew."""
    lams = np.sort(curve.lam).tolist()

    def scene(sheet):
        figure = figures.curve_and_shares(curve)

        def move(lam):
            near = int(np.abs(curve.lam - lam).argmin())
            solved = np.isclose(curve.lam[near], lam)
            point = curve.point(near) if solved else rate_distortion(losses, lam)
            serving = (point.marginal >= 0.01).sum()
            numbers = {
                "λ =": f"{lam:.3g}",
                "rate": f"{point.rate:.4f} nats",
                "expected loss": f"{point.distortion:.4f}",
                "experts that serve at least 1%:": f"{serving} of {len(point.marginal)}",
                "certificate": f"{point.certificate:.0e} nats",
            }
            return figures.curve_point(figure.axes, point, curve.rate.max()), numbers

        return figure, move

    alt = (
        "Left: expected loss against rate, a falling convex curve with its supporting line at the "
        "chosen point. Right: the share of images that each expert serves there."
    )
    limits = (float(np.log10(lams[0])), float(np.log10(lams[-1])), "log")
    return _explorer(scene, {"lam": Dial("lambda", lams[len(lams) // 2], lams, limits)}, alt, live)


# --- gates that pay for their bits ---


def explore_gates(
    sweep: GateSweep, bank: ExpertBank, n_images: int = 4000, live: bool | None = None
) -> ipywidgets.VBox:
    """By price: the gate that routes on distilled estimates of E[loss | x], beside D(R) and the
    trained gates."""
    losses = bank.losses("test")[:n_images]
    estimates = sweep.estimates(bank.name, "distilled")[:n_images]
    curve = rate_distortion_curve(losses)
    rows = sweep.candidates(bank.name)
    families = {name: rows[rows["family"] == name] for name in GATE_FAMILIES}
    points = {
        name: (np.asarray(found["rate"]), np.asarray(found["loss"]))
        for name, found in families.items()
    }

    def scene(sheet):
        figure = figures.gate_dial(curve, points, bank.n_experts)

        def move(lam):
            gate = routing(estimates, rate_distortion(estimates, lam))
            rate = gating_rate(gate)
            load = gate.mean(axis=0)
            loss = float((gate * losses).sum() / len(losses))
            best = float(curve.upper(rate))
            numbers = {
                "λ =": f"{lam:.3g}",
                "rate": f"{rate:.3f} nats",
                "loss": f"{loss:.4f}",
                "D at this rate": f"{best:.4f}",
                "largest load": f"{load.max():.3f}",
            }
            return figures.gate_point(figure.axes, rate, loss, best, load), numbers

        return figure, move

    alt = (
        "Left: expected loss against rate with the distortion-rate curve below the trained gates, "
        "and a ring at the gate of the chosen price joined to the curve under it. Right: the share "
        "of inputs that each expert serves."
    )
    frames = np.geomspace(0.01, 2, 24).tolist()
    return _explorer(scene, {"lam": Dial("lambda", 0.2, frames, (-2.0, 0.3, "log"))}, alt, live)


# --- chapter 11: the ladder of bounds ---


LADDER_NAMES = {
    "union_bound": "union",
    "xu_raginsky_bound_sigma_1": "Theorem 1, σ = 1",
    "xu_raginsky_bound": "Theorem 1, σ = 1/2",
    "kearns_saul_bound": "Kearns-Saul",
    "okamoto_bound": "Okamoto",
    "cumulant_bound": "exact cumulants",
    "pac_bayes_kl_bound": "PAC-Bayes-kl",
    "individual_sample_bound": "individual sample",
    "disintegrated_bound": "disintegrated",
    "loss_difference_bound": "loss difference",
    "total_variation_bound": "total variation",
    "disintegrated_kl_bound": "inverse binary kl",
    "conditional_mi_bound": "conditional MI",
    "evaluated_cmi_bound": "evaluated CMI",
}


def explore_ladder(
    experiments: Sequence[LadderExperiment], live: bool | None = None
) -> ipywidgets.VBox:
    """Every bound as a multiple of the gap, by alpha and by the sample size m of the given
    experiments."""
    by_size = {experiment.sample_size: experiment for experiment in experiments}

    def scene(sheet, sample_size):
        experiment = by_size[sample_size]
        names = sorted(experiment.at(1, errors=False).values.items(), key=lambda item: -item[1])
        figure = figures.ladder_axes([LADDER_NAMES[key] for key, _ in names], onto=sheet)

        def move(alpha):
            ladder = experiment.at(alpha, errors=False)
            multiples = [ladder.values[key] / ladder.gap for key, _ in names]
            information = 2 * sample_size * ladder.values["xu_raginsky_bound"] ** 2
            numbers = {
                "I(S;W) =": f"{information:.3f} nats",
                "gap": f"{ladder.gap:.4f}",
                "Theorem 1 with σ = 1": f"{ladder.values['xu_raginsky_bound_sigma_1']:.4f}",
                "tightest": f"{min(ladder.values.values()):.4f}",
            }
            return figures.ladder_rungs(figure.axes[0], multiples), numbers

        return figure, move

    alt = (
        "Bars on a logarithmic axis: each of fourteen bounds as a multiple of the gap, the loosest "
        "on top."
    )
    dials = {
        "alpha": Dial("alpha", 0.7, ALPHAS[1:], (0.05, 1.0, 0.01)),
        "sample_size": Dial("sample size m", max(by_size), sorted(by_size)),
    }
    return _explorer(scene, dials, alt, live)


# --- chapter 16: private gates and noisy links ---


def explore_link(
    prior, costs, curve: RateDistortionCurve, live: bool | None = None
) -> ipywidgets.VBox:
    """What a private index on a noisy link is worth: loss by the link's error and by epsilon, above
    D of the least cap.

    The wanted index of law prior (k,), costs (k, k) from `privacy.wanted_experts`, is made private,
    crosses a k-ary symmetric link once, and the receiver takes the best expert for what arrives.
    `curve` is the bank's own, banded.
    """
    k = len(prior)
    errors = np.linspace(0, 1 - 1 / k, 13)

    def scene(sheet, epsilon):
        mechanisms = {
            "randomised response": randomised_response(k, epsilon),
            "staircase": least_loss_mechanism(prior, epsilon, costs),
        }
        privacy = min(ldp_rate_cap(k, epsilon), ldp_sharp_cap(epsilon))

        def loss_of(name, error):
            return routed_loss(prior, costs, mechanisms[name] @ symmetric_channel(k, error))

        def limit_at(error):
            return float(curve.lower(min(privacy, symmetric_capacity(k, error))))

        figure = figures.against_limits(
            [_link_panel(errors, loss_of, limit_at, curve)], 6.4, onto=sheet
        )

        def move(error):
            carried = mutual_information(
                mechanisms["staircase"] @ symmetric_channel(k, error), prior
            )
            loss = loss_of("staircase", error)
            limit = limit_at(error)
            numbers = {
                "privacy allows": f"{privacy:.3f} nats",
                "the link": f"{symmetric_capacity(k, error):.3f}",
                "staircase carries": f"{carried:.3f}",
                "loss": f"{loss:.4f}",
                "of randomised response": f"{loss_of('randomised response', error):.4f}",
                "limit": f"{limit:.4f}",
            }
            return figures.pointer(figure.axes[0], error, loss, [limit]), numbers

        return figure, move

    alt = (
        "Expected loss against the error of the link: two lines for private mechanisms rise to the "
        "loss of the best single expert, above a limit. A ring marks the chosen error, and a line "
        "joins it to the limit."
    )
    dials = {
        "error": Dial("error of the link", errors[2], errors.tolist(), (0.0, 1 - 1 / k, 0.005)),
        "epsilon": Dial("epsilon", 2, [0.1, 0.5, 1, 2, 3, 5, 8], (-1, 0.9, "log")),
    }
    return _explorer(scene, dials, alt, live)


def _link_panel(errors, loss_of: Callable, limit_at: Callable, curve: RateDistortionCurve) -> dict:
    """A panel of `figures.against_limits`: both mechanisms by the error of the link."""
    names = ("randomised response", "staircase")
    measured = {f"{name}, link": [loss_of(name, error) for error in errors] for name in names}
    limits = {
        "D(least cap)": [limit_at(error) for error in errors],
        "no gate: D(0)": curve.ceiling,
        "every input's best": curve.floor,
    }
    labels = {"xlabel": "error of the link", "ylabel": "expected loss"}
    room = (0.9 * curve.floor, 1.1 * curve.ceiling)
    return {"x": errors, "measured": measured, "limits": limits, "ylim": room, **labels}
