"""The stages `play.games` and `play.patched`, for any environment."""
