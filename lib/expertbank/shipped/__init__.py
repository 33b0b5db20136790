"""What `data/` holds: banks of experts, trained gates and runs of the testbed, each behind a
manifest."""
