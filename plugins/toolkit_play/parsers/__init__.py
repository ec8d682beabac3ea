"""The built-in parsers. All read the options from the prompt; none is specific to a game."""
