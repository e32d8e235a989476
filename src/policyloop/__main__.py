"""`python -m policyloop`."""

from policyloop.cli import main

main()
