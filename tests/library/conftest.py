"""What the tests of the library share: training on a slice of MNIST."""

from __future__ import annotations

import pytest

from support import SLICE


@pytest.fixture(scope="module")
def experts(mnist_root):
    """expertbank.training.experts, reading the first few hundred images of each split (in this
    process alone)."""
    from expertbank.training import experts

    whole = experts.load_images

    def load_slice(data, split, root=None, download=False):
        images, labels = whole(data, split, root or mnist_root, download)
        return images[: SLICE[split]], labels[: SLICE[split]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experts, "load_images", load_slice)
        yield experts


def pytest_collection_modifyitems(items):
    """Tests that read MNIST or the testbed's corpus are slow: most of them train."""
    for item in items:
        if {"mnist_root", "mix"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
