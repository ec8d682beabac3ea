"""From YAML to a validated spec: reading with provenance, overlays, problems with file and line."""
