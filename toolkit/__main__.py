"""`python -m toolkit` is the `toolkit` command."""

from toolkit._cli import main

main()
