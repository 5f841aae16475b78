"""`entry64 report`: the results of sweeps as one HTML page that needs nothing else."""
