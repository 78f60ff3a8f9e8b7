"""Everything that watches a pipeline: each an `Instrument` on the manager's one seam."""
