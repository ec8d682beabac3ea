"""Start a worker and talk to it: the interface of executors, the messages, a worker behind pipes,
and the GPUs of a machine. Each module is imported by its own path; this one imports nothing.
"""
