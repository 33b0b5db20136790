"""Whether it comes out again: two results compared, shipped ones verified, the whole rerun."""
