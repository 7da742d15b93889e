"""What every workload is made of: search spaces, data sets in fixed splits, and a classifier in training.

May import the pure core and numpy; torch in `classifier` and `gradients`, which are imported when a trial is built.
"""
