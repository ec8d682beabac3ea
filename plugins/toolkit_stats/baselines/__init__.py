"""What metadata and the raw stream reach without any SAE: leak, probe, residual."""
