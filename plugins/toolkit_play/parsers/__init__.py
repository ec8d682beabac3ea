"""The built-in parsers. All take the options from the prompt; none knows a game by name."""
