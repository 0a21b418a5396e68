"""Gets all jobs done, on this machine or on a cluster."""

import warnings

# `executors.start` says so in the suite's own words.
warnings.filterwarnings("ignore", ".*joblib will operate in serial mode", UserWarning)
