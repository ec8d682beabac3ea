"""The pages about a store and its runs, one module each. A page's function gets the library and the
query of the address, and returns a `Page`.
"""
