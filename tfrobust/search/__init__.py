"""Hyper-parameter search: a space of settings, trials, the best of them, and figures.

`space.py` defines what is varied, `plan.py` which points are tried, `study.py` runs them with
Optuna (Akiba et al., 2019, https://arxiv.org/abs/1907.10902), `objective.py` is one trial,
`results.py` and `figure_data.py` are the output.
"""
