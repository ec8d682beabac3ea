"""How well metadata and the raw stream separate groups without any SAE: leak, probe, residual."""
