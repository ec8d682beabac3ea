"""Tools for tests of plugins and of the toolkit itself: contract checks, planted ground truth, null
data. Import the module that you need.
"""
