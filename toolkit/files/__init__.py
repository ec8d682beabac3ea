"""Files outside the store: those that a spec names, repositories of the hub, NumPy archives and
JSON Lines. Each module is imported by its own path; this one imports nothing.
"""
