"""What a run of the pipeline will take, and how right that was. No stage imports it."""
