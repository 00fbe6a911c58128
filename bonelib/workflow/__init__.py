"""What `run_all.py` needs: a run, its steps and the driver."""
