"""Any mixture of experts, seen through its router: counts that stream and merge, and a report on each layer."""

from expertbank.routers.statistics import (
    Agreement,
    LayerStatistics,
    RouterStatistics,
    load_statistics,
    merge_statistics,
)

__all__ = ["Agreement", "LayerStatistics", "RouterStatistics", "load_statistics", "merge_statistics"]
