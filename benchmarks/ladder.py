"""Every bound of the ladder on every shipped bank, at both sample sizes: python
benchmarks/ladder.py (minutes)

Prints, for each bank and m, the least bound/gap of each rung over alpha, and says at the end what
does not hold.
"""

import numpy as np

from expertbank import load_bank
from expertbank.ladder import LadderExperiment
from expertbank.shipped.bank import load_family

ALPHAS = (0, 0.25, 0.5, 0.7, 0.9, 1)


def main() -> None:
    broken = []
    for bank in (load_bank("mnist"), *load_family("replicate"), *load_family("grid")):
        for m in (64, 256):
            experiment = LadderExperiment(bank.losses("train"), m, rng=0, n_datasets=4000)
            least, greatest = {}, 0.0
            for ladder in map(experiment.at, ALPHAS):
                for name, value in ladder.values.items():
                    if value < ladder.gap - 3 * (ladder.errors[name] + ladder.gap_error) - 1e-12:
                        broken.append((bank.name, m, ladder.alpha, name))
                    if ladder.alpha > 0:
                        least[name] = min(least.get(name, np.inf), value / ladder.gap)
                if ladder.alpha > 0:
                    greatest = max(greatest, ladder.values["disintegrated_kl_bound"] / ladder.gap)
            numbers = " ".join(
                f"{name.removesuffix('_bound')} {ratio:.2f}" for name, ratio in least.items()
            )
            print(f"{bank.name} m={m}: {numbers}; inverse kl at most {greatest:.2f}", flush=True)
    print(f"bounds that do not hold: {broken or 'none'}")


if __name__ == "__main__":
    main()
