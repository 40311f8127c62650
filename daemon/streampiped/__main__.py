"""`python -m streampiped`, for where no console script is installed."""

from streampiped.cli import main

main()
