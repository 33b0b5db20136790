"""Any mixture of experts, seen through its router: counts that stream and merge, and a report on
each layer.

`record_routing` runs a model and `statistics_of` reads files; both count into `RouterStatistics`,
of which `routing_report` makes the report. Arrays of one's own are counted by `update`:

>>> statistics = RouterStatistics(n_experts=4, n_chosen=2)
>>> statistics.update(0, chosen=[[0, 1], [0, 2], [1, 0], [0, 1]])
>>> layer = routing_report(statistics).layers[0]
>>> layer.dead_experts, layer.max_violation
((3,), 1.0)
"""

from expertbank.routers.agreement import Agreement, compare_routing
from expertbank.routers.communication import Communication, dropped_share, judge_placements
from expertbank.routers.formats import read_routing, statistics_of
from expertbank.routers.hooks import Choice, record_routing
from expertbank.routers.layer_report import LayerReport
from expertbank.routers.loss_tables import LossTable, loss_table, open_loss_table
from expertbank.routers.placement import place, save_placement
from expertbank.routers.regret import RouterRegret, regret_on_half, router_regret
from expertbank.routers.report import RoutingReport, routing_report
from expertbank.routers.report_page import write_html
from expertbank.routers.statistics import (
    LayerStatistics,
    RouterStatistics,
    load_statistics,
    merge_statistics,
)

__all__ = [
    "Agreement",
    "Choice",
    "Communication",
    "LayerReport",
    "LayerStatistics",
    "LossTable",
    "RouterRegret",
    "RouterStatistics",
    "RoutingReport",
    "compare_routing",
    "dropped_share",
    "judge_placements",
    "load_statistics",
    "loss_table",
    "merge_statistics",
    "open_loss_table",
    "place",
    "read_routing",
    "record_routing",
    "regret_on_half",
    "router_regret",
    "routing_report",
    "save_placement",
    "statistics_of",
    "write_html",
]
