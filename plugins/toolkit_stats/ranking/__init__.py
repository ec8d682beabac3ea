"""Features ranked by an ordinal label: stage, report section and sink."""
