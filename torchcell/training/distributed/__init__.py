"""Processes, devices, SLURM and signals: all that differs between one process on a laptop and many on a cluster.

The contract, which nothing outside of this package needs to know:

- ``processes.run_in_processes(task, config)`` calls ``task(config, context)`` in as many processes as the trainer's
  config sets. It starts them itself, or finds those that srun or torchrun started. Each gets a ``DistributedContext``
  with its rank, the number of processes and its device.
- ``placement`` says which device a process takes. To Lightning every process is a node with one device
  (``one_device_a_node``, ``OneDeviceANode``), so that all launchers and all ways to bind GPUs are treated the same.
- All processes end together: one that dies, refuses or fails ends the others within ``trainer.lost_after_s``
  seconds, and the first one prints why (``processes.Watch``).
- ``devices`` chooses the accelerator: CUDA or the CPU by itself; MPS only by name, and after a check of its gradients.
- ``slurm`` turns signals into a checkpoint and, where SLURM allows it, into a requeued job that goes on.
- Only rank 0 writes into the run folder. Predictions are gathered once, compared with the ids of the split and scored
  once, so that one process and many give the same results.
"""
