"""What people say about features: their addresses, Neuronpedia ids, labels, how well two
descriptions agree, and the comparisons that their rows belong to. Each module is imported by its
own path; this one imports nothing.
"""
