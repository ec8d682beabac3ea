"""The stage `play.games`: it plays whatever environment a spec names."""
