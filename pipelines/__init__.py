"""The verbs of `tfrobust` as modules, `python -m pipelines.VERB`; and the recipes."""
