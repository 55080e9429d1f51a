"""The report of a search: what `report_hpo.py` reads, reckons, draws and writes. Imports neither NNI nor torch.

read.py        an experiment's folder in, a Search out
parameters.py  the search space as ranges: where a value lies in its range, at which edge, what to search next
importance.py  which hyperparameters matter, by Optuna
findings.py    what the pictures show, in sentences
best.py        the best trial, in sentences
draw.py        the pictures; parallel.py: parallel coordinates
page.py        the page that holds both
final.py       configurations trained again: statistics, confusion matrix, selection bias
interval.py    how sure a test accuracy is, or a difference of two
cost.py        what the best net costs, its accuracy against bits
sections.py    the sections of a search's page
compare.py     several searches side by side
"""
