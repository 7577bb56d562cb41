"""Hyper-parameter search: a space of settings, trials, the best of them, and pictures.

`space.py` says what is varied, `plan.py` which points are tried, `study.py` runs them by
Optuna (Akiba et al., 2019, https://arxiv.org/abs/1907.10902), `objective.py` is one trial,
`results.py` and `figures.py` are what comes out.
"""
