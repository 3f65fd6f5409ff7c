"""The options of a run: their definition, the checks of their combinations, and the parsing of recipes.

Start with `arguments.py`, which defines every option. `parsing.py` reads them from a recipe and a command line, and
`cross_checks.py` refuses options that contradict each other.
"""
