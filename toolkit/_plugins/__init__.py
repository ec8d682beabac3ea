"""Finding and importing plugins, checking their parts, and scaffolding a new one."""
