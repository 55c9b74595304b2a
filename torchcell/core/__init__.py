"""What every task is made of: record, split, spec, batch, datamodule, baseline, model."""
