"""Building, checking and exporting the images that stages run in: `toolkit images`."""
