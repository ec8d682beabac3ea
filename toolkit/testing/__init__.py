"""Tools shared by plugin authors and the toolkit's own tests: contract checks, planted ground
truth, null data. Import the module you need.
"""
