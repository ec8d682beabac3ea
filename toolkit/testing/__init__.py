"""What plugin authors and our own tests share: contract checks, planted ground truth, null data.
Import the module you need.
"""
