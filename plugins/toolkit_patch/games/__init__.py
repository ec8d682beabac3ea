"""Games under persistent patches, paired with the same games without the patch."""
