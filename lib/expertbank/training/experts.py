"""The CNN bank of P2, section V, and specialists: training, resuming, checking predictions against
shipped weights."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn
from tqdm import tqdm

from expertbank._checks import ABOVE_0, BELOW_INF, as_count, as_number
from expertbank._files import write_atomically
from expertbank.distortions import DISTORTIONS, WINDOWS, distort, mixed, specialty
from expertbank.shipped.bank import DATA_SETS, SPLITS, load_bank, save_bank
from expertbank.shipped.manifest import MANIFEST, check_file, check_free, read_manifest
from expertbank.training.datasets import IMAGES, load_images
from expertbank.training.resumable import provenance, resumed, run_missing

# small enough for the activations to stay in cache: 5 times faster than 2,000
PREDICTION_BATCH = 50
# logits of two classes closer than this may swap places on another processor or thread count
TIE_MARGIN = 1e-3
# ... which is rare: more than this share means weights that decide nothing, not rounding
MOST_TIES = 1e-3
ARCHITECTURE = {"architecture": "conv16-pool-conv32-pool-fc64-softmax10", "optimizer": "Adam"}
BANK_SEEDS = {
    "subset": "expert r saw numpy.random.default_rng([seed, r]).permutation({n})[:subset_size]",
    "torch": "torch.manual_seed(numpy.random.SeedSequence([seed, r]).generate_state(1)[0]) "
    "before expert r",
}
MIX_SEEDS = {
    "subset": "of its digits' n images expert r saw "
    "numpy.random.default_rng([seed, r]).permutation(n)[:subset_size]",
    "distortion": "of those images: numpy.random.default_rng([seed, r, 1]); "
    "see expertbank.distortions.distort",
    "mix": "kind of each image: default_rng([seed, *split.encode()]), "
    "its distortion: the same with a 1 appended",
}


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a bank. Expert r draws from `SeedSequence([seed, r])`."""

    n_experts: int = 25
    subset_size: int = 10_000
    batch_size: int = 80
    epochs: int = 1
    learning_rate: float = 1e-3
    seed: int = 2026
    data: str = "mnist"

    def __post_init__(self):
        if self.data not in DATA_SETS:
            raise ValueError(f"data is {self.data!r}; allowed are {tuple(DATA_SETS)}")
        for name in ("n_experts", "subset_size", "batch_size", "epochs"):
            as_count(getattr(self, name), name)
        as_count(self.seed, "seed", at_least=0)
        as_number(
            self.learning_rate, "learning_rate", ABOVE_0, BELOW_INF, allowed="a positive number"
        )


@dataclass(frozen=True)
class SpecialistRecipe(Recipe):
    """Experts that each see one distortion and six of the digits, judged on a mix of all: see
    `distortions`."""

    distortions: str = " ".join(DISTORTIONS)

    def __post_init__(self):
        super().__post_init__()
        if self.distortions != " ".join(DISTORTIONS):
            raise ValueError(
                f"distortions is {self.distortions!r}; allowed is {' '.join(DISTORTIONS)!r}"
            )
        most = len(DISTORTIONS) * len(WINDOWS)
        if self.n_experts > most:
            raise ValueError(
                f"n_experts is {self.n_experts}; "
                f"allowed is at most {most}, the specialties there are"
            )


# banks that say how far results depend on the draw: 20 more of the default recipe, and 50 experts
# at three subset sizes, of which the first 10 and 25 are the smaller banks (the first 25 at 10,000
# are the default bank itself)
BANK_FAMILY = {f"replicate-{seed}": Recipe(seed=seed) for seed in range(2027, 2047)} | {
    f"grid-{size:05d}": Recipe(n_experts=50, subset_size=size) for size in (5_000, 10_000, 20_000)
}


def bank_family(data: str = "mnist") -> dict[str, Recipe]:
    """The recipes of a data set's family by name: twenty replicates, and of MNIST also the grid.

    >>> len(bank_family()), len(bank_family("fashion"))
    (23, 20)
    """
    if data == "mnist":
        return BANK_FAMILY
    replicates = {name: r for name, r in BANK_FAMILY.items() if name.startswith("replicate")}
    return {name: replace(recipe, data=data) for name, recipe in replicates.items()}


def expert_network(n_outputs: int = 10, image_shape: tuple[int, ...] = (28, 28)) -> nn.Sequential:
    """conv 16 - pool - conv 32 - pool - fc 64 - 10 logits, 3x3 kernels, padding 1: 105,866
    parameters for images (28, 28); a third number in `image_shape` counts the colours.

    >>> sum(weights.numel() for weights in expert_network().parameters())
    105866
    """
    height, width, *colours = image_shape
    channels = colours[0] if colours else 1
    network = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # (B, 16, H/2, W/2)
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),  # (B, 32, H/4, W/4)
        nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), 64), nn.ReLU(),
        nn.Linear(64, n_outputs),
    )  # fmt: skip
    # half the time of the default on a CPU; torch's own annotations leave this argument out
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def training_subset(recipe: Recipe, expert: int, n_images: int = 60_000) -> np.ndarray:
    """Indices of the images that one expert saw; a smaller subset_size gives the head of a larger
    one.

    Raises ValueError where there are not so many images.

    >>> training_subset(Recipe(), expert=0)[:3].tolist()
    [17912, 40521, 57844]
    """
    if recipe.subset_size > n_images:
        raise ValueError(
            f"subset_size is {recipe.subset_size}; "
            f"allowed is at most {n_images}, the images there are"
        )
    rng = np.random.default_rng([recipe.seed, expert])
    return rng.permutation(n_images)[: recipe.subset_size]


def training_data(
    images: np.ndarray, labels: np.ndarray, recipe: Recipe, expert: int
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of the training split, (N, 28, 28) and (N,), that one expert learns
    from; those of a specialist are distorted.

    >>> labels = np.arange(60) % 10
    >>> images = np.zeros((60, 28, 28), np.uint8)
    >>> own_images, own = training_data(images, labels, SpecialistRecipe(subset_size=30), expert=0)
    >>> own_images.shape, np.unique(own).tolist()
    ((30, 28, 28), [0, 1, 2, 3, 4, 5])
    """
    if not isinstance(recipe, SpecialistRecipe):
        subset = training_subset(recipe, expert, len(images))
        return images[subset], labels[subset]
    distortion, window = specialty(expert)
    known = np.flatnonzero(np.isin(labels, window))
    subset = known[training_subset(recipe, expert, len(known))]
    kinds = np.full(len(subset), DISTORTIONS.index(distortion))
    rng = np.random.default_rng([recipe.seed, expert, 1])
    return distort(images[subset], kinds, rng), labels[subset]


def judged_on(images: np.ndarray, split: str, recipe: Recipe) -> np.ndarray:
    """What the bank is evaluated on: the images of a split, or for specialists the mix made from
    them.

    >>> images = np.zeros((5, 28, 28), np.uint8)
    >>> judged_on(images, "test", Recipe()) is images
    True
    """
    return mixed(images, split, recipe.seed) if isinstance(recipe, SpecialistRecipe) else images


def train_expert(
    images: np.ndarray, labels: np.ndarray, recipe: Recipe, expert: int, device: str = "cpu"
) -> nn.Module:
    """Train one expert on its own subset of images (N, 28, 28) uint8; its seed sets subset,
    weights, order.

    >>> images = np.zeros((40, 28, 28), np.uint8)
    >>> images[20:] = 255  # black and white
    >>> labels = np.repeat([0, 1], 20)
    >>> recipe = Recipe(n_experts=1, subset_size=40, batch_size=10, epochs=5)
    >>> network = train_expert(images, labels, recipe, expert=0)
    >>> logits(network, images).argmax(axis=1)[[0, -1]].tolist()
    [0, 1]
    """
    images, labels = training_data(images, labels, recipe, expert)
    x = as_input(images).to(device)
    y = torch.from_numpy(labels).long().to(device)
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed, expert]).generate_state(1)[0]))
        network = expert_network(image_shape=images.shape[1:]).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(x)).split(recipe.batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
                optimizer.step()
    return network.eval()


def as_input(images: np.ndarray) -> torch.Tensor:
    """(N, 28, 28) uint8 to (N, 1, 28, 28) floats in [0, 1], and (N, H, W, 3) to (N, 3, H, W): the
    one normalisation of every data set, so that a recipe differs in its images alone.

    >>> as_input(np.full((2, 28, 28), 255, np.uint8))[0, 0, 0, 0].item()
    1.0
    """
    pixels = torch.tensor(images)
    channels_first = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels.unsqueeze(1)
    return channels_first.float() / 255


@torch.no_grad()
def logits(network: nn.Module, images: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Logits (N, 10) of a network for images (N, 28, 28), computed a batch at a time.

    >>> logits(expert_network(), np.zeros((3, 28, 28), np.uint8)).shape
    (3, 10)
    """
    starts = range(0, len(images), PREDICTION_BATCH)
    batches = (as_input(images[start : start + PREDICTION_BATCH]).to(device) for start in starts)
    return torch.cat([network(batch).cpu() for batch in batches]).numpy()


def train_bank(
    folder: str | os.PathLike,
    recipe: Recipe | None = None,
    root: str | os.PathLike | None = None,
    download: bool = False,
    n_jobs: int | None = None,
    device: str | None = None,
    keep_weights: bool = True,
) -> None:
    """Train every expert of a `Recipe` (default: the shipped bank's) and write a bank into
    `folder`, with the weights of its experts unless they are not to be kept.

    Finished experts wait in `<folder>.partial`, so a killed run goes on where it stopped. Raises
    FileExistsError where `folder` holds something, ValueError where the partial run has another
    recipe or where another run is at work on it.

    >>> recipe = Recipe(n_experts=2, subset_size=1000)  # doctest: +SKIP
    >>> train_bank("small", recipe, download=True)  # doctest: +SKIP
    """
    folder = Path(folder)
    check_free(folder, "a bank")
    recipe = Recipe() if recipe is None else recipe
    _train_all({folder: recipe}, keep_weights, root, download, n_jobs, device)


def train_family(
    folder: str | os.PathLike,
    recipes: dict[str, Recipe] | None = None,
    root: str | os.PathLike | None = None,
    download: bool = False,
    n_jobs: int | None = None,
    device: str | None = None,
) -> None:
    """Train many banks, a subfolder each, without weights; default: the `BANK_FAMILY` that the book
    ships.

    Banks that exist are left alone, so the same call resumes; FileExistsError where none is
    missing, ValueError where one was made by another recipe. Experts are spread over workers by
    joblib: `n_jobs` processes, or whatever `joblib.parallel_config` says, such as a Dask cluster.

    >>> recipes = {f"seed-{seed}": Recipe(seed=seed) for seed in range(5)}  # doctest: +SKIP
    >>> train_family("family", recipes, n_jobs=4)  # doctest: +SKIP
    """
    recipes = bank_family() if recipes is None else recipes
    folders = {Path(folder) / name: recipe for name, recipe in recipes.items()}
    missing = {}
    for path, recipe in folders.items():
        if not (path / MANIFEST).exists():
            missing[path] = recipe
        elif recipe_of(read_manifest(path)) != recipe:
            raise ValueError(f"{path} holds a bank of another recipe; choose another folder")
    if not missing:
        held = f"{folder} already holds all {len(recipes)} banks"
        raise FileExistsError(f"{held}; choose another folder or move it away")
    _train_all(missing, False, root, download, n_jobs, device)


def _train_all(
    recipes: dict[Path, Recipe],
    keep_weights: bool,
    root: str | os.PathLike | None,
    download: bool,
    n_jobs: int | None,
    device: str | None,
) -> None:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    data = {
        name: {split: load_images(name, split, root, download) for split in SPLITS}
        for name in {recipe.data for recipe in recipes.values()}
    }
    for recipe in recipes.values():
        training_data(*data[recipe.data]["train"], recipe, 0)  # raises before anything is written
    arrays = {name: (*splits["train"], splits["test"][0]) for name, splits in data.items()}
    with ExitStack() as stack:
        places = {
            folder: stack.enter_context(resumed(folder, _manifest(recipe, device), "a bank"))
            for folder, recipe in recipes.items()
        }
        tasks = {
            places[folder][0] / _expert_file(expert): (
                _trained,
                *arrays[recipe.data],
                recipe,
                expert,
                device,
            )
            for folder, recipe in recipes.items()
            for expert in range(recipe.n_experts)
        }
        run_missing(tasks, "experts", n_jobs if device == "cpu" else 1)
        for folder, recipe in recipes.items():
            partial, whole = places[folder]
            _assemble(whole, partial, data[recipe.data], recipe, device, keep_weights)


def verify_bank(
    name: str | os.PathLike = "mnist",
    bank_root: str | os.PathLike | None = None,
    data: str | os.PathLike | None = None,
    n_images: int | None = None,
    progress: bool = True,
) -> dict[str, int]:
    """Recompute predictions from a bank's weights and its data set and compare; `n_images` limits
    each split, `progress` shows a bar.

    Returns how many predictions were `compared` and how many of them differ at a numerical tie
    (`ties`). Raises ValueError where a hash, a label or a prediction that is no tie differs.

    >>> verify_bank("mnist", n_images=200)  # doctest: +SKIP
    {'compared': 10000, 'ties': 0}
    """
    if n_images is not None:
        as_count(n_images, "n_images")
    bank = load_bank(name, bank_root)
    weights = load_file(check_file(bank.folder, bank.manifest, "weights.safetensors"))
    recipe = recipe_of(bank.manifest)
    counts = {"compared": 0, "ties": 0}
    for split in SPLITS:
        images, labels = load_images(recipe.data, split, data)
        images = judged_on(images, split, recipe)[:n_images]
        network = expert_network(image_shape=images.shape[1:]).eval()
        if not np.array_equal(labels[:n_images], bank.labels(split)[:n_images]):
            title = DATA_SETS[recipe.data]
            raise ValueError(f"bank {name}: {split} labels differ from those of {title}")
        for expert in tqdm(range(bank.n_experts), desc=split, disable=not progress):
            network.load_state_dict(_of_expert(weights, expert))
            scores = logits(network, images)
            shipped = bank.predictions(split)[:n_images, expert]
            place = f"bank {name}, expert {expert}, {split}"
            counts["compared"] += len(images)
            counts["ties"] += _count_ties(scores, shipped, place)
    if counts["ties"] > max(3, MOST_TIES * counts["compared"]):
        raise ValueError(
            f"bank {name}: {counts['ties']} of {counts['compared']} predictions differ, "
            "too many for ties"
        )
    return counts


def _count_ties(scores: np.ndarray, shipped: np.ndarray, place: str) -> int:
    """How many shipped predictions (N,) are not the largest of the logits (N, 10), each by so
    little that rounding decides; ValueError where one is no tie."""
    differs = np.flatnonzero(scores.argmax(axis=1) != shipped)
    margin = scores[differs].max(axis=1) - scores[differs, shipped[differs]]
    if not np.all(margin <= TIE_MARGIN):  # also where a weight is nan
        image = differs[margin.argmax()]
        raise ValueError(
            f"{place} image {image}: shipped prediction {shipped[image]}, "
            f"weights give {scores[image].argmax()} by {margin.max():.3g} in the logit"
        )
    return len(differs)


def recipe_of(manifest: dict) -> Recipe:
    """The recipe that a bank's manifest states, else the default; ValueError where a field is
    unknown.

    >>> recipe_of(load_bank("mnist").manifest) == Recipe()
    True
    """
    stated = manifest.get("recipe", {})
    try:
        recipe = {name: value for name, value in stated.items() if name not in ARCHITECTURE}
        kind = SpecialistRecipe if "distortions" in recipe else Recipe
        return kind(**recipe)
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"the manifest's recipe {stated} is none that this version knows: {error}"
        ) from error


def _trained(
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray,
    recipe: Recipe,
    expert: int,
    device: str,
) -> bytes:
    network = train_expert(images, labels, recipe, expert, device)
    tensors = {
        f"weights.{key}": value.cpu().contiguous() for key, value in network.state_dict().items()
    }
    for split, inputs in zip(SPLITS, (images, test_images), strict=True):
        scores = logits(network, judged_on(inputs, split, recipe), device)
        classes = scores.argmax(axis=1).astype(np.uint8)
        tensors[f"predictions.{split}"] = torch.from_numpy(classes)
    return save(tensors)


def _assemble(
    folder: Path,
    partial: Path,
    data: dict[str, tuple[np.ndarray, np.ndarray]],
    recipe: Recipe,
    device: str,
    keep_weights: bool,
) -> None:
    experts = [load_file(partial / _expert_file(e)) for e in range(recipe.n_experts)]
    labels = {split: data[split][1] for split in SPLITS}
    predictions = {}
    accuracies = {}
    for split in SPLITS:
        columns = [expert[f"predictions.{split}"].numpy() for expert in experts]
        predictions[split] = np.stack(columns, axis=1)
        is_right = predictions[split] == labels[split][:, None]
        accuracies[split] = is_right.mean(axis=0).round(4).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    extra_files = ()
    if keep_weights:
        extra_files = ("weights.safetensors",)
        _save_weights(folder / "weights.safetensors", experts)
    manifest = _manifest(recipe, device) | {"accuracies": accuracies}
    save_bank(folder, labels, predictions, manifest, extra_files)


def _manifest(recipe: Recipe, device: str) -> dict:
    title = DATA_SETS[recipe.data]
    stated = asdict(recipe)
    if recipe.data == "mnist":
        del stated["data"]  # as in the banks that were sealed before there was a choice
    images = IMAGES[recipe.data]
    seeds = BANK_SEEDS | (MIX_SEEDS if isinstance(recipe, SpecialistRecipe) else {})
    return {
        "title": f"{recipe.n_experts} {title} CNNs, one epoch on {recipe.subset_size} images each",
        "recipe": {**ARCHITECTURE, **stated},
        "seeds": {key: text.replace("{n}", str(images.n_train)) for key, text in seeds.items()},
        **provenance("numpy", "torch", "torchvision", device=device),
        "source": f"{images.source}; predictions and weights: this project, CC BY-SA 3.0",
    }


def _save_weights(path: Path, experts: list[dict]) -> None:
    weights = {
        f"expert_{index:02d}.{key.removeprefix('weights.')}": value
        for index, expert in enumerate(experts)
        for key, value in expert.items()
        if key.startswith("weights.")
    }
    write_atomically(path, lambda file: file.write(save(weights)))


def _expert_file(expert: int) -> str:
    return f"expert_{expert:02d}.safetensors"


def _of_expert(weights: dict, expert: int) -> dict:
    prefix = f"expert_{expert:02d}."
    return {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
