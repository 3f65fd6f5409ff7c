"""A web page to try a trained classifier, on this machine or as a Hugging Face Space.

Start with `page.py`, which builds the page. `occlusion.py` explains predictions, and `space_export.py` writes the
folder of a Space.
"""
