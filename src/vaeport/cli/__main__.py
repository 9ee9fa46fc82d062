"""`python -m vaeport.cli`."""

from vaeport.cli import main

main()
