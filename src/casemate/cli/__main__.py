"""`python -m casemate.cli`, where no script is installed."""

from casemate.cli import main

main()
