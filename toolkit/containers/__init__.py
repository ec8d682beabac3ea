"""Workers in containers: the mounts and environment of a container, the engine that starts it, the
images and the digests that they are pinned to. Each module is imported by its own path; this one
imports nothing.
"""
