"""Make a folder that searches a locale's products in the visitor's own browser: `--out`.

No stage: `python -m pipeline.browser --locale us --out DIR`; any static server can serve DIR.
"""
