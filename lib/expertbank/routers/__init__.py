"""Any mixture of experts, seen through its router: counts that stream and merge, and a report on each layer."""
