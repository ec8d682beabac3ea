"""Rows of the table `activations`: read them space by space, select among the positions that an
extraction kept, turn them into matrices, and write the dense layouts of published pipelines. Each
module is imported by its own path; this one imports nothing.
"""
