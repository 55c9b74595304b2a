"""Processes, devices, SLURM and signals: all that differs between one process on a laptop and many on a cluster.

The contract, which nothing outside of this package needs to know:

- ``processes.run_in_processes(task, config)`` calls ``task(config, context)`` in as many processes as the trainer's
  config asks for. It starts them itself, or finds those that srun or torchrun started. Each gets a
  ``DistributedContext``: its rank, how many there are, its device.
- ``placement`` says which device a process takes. To Lightning every process is a node with one device
  (``one_device_a_node``, ``OneDeviceANode``), so each launcher and each way to bind GPUs is alike.
- All processes end together: one that is lost, refuses or fails ends the others within ``trainer.lost_after_s``
  seconds, and the first one says why (``processes.Watch``).
- ``devices`` chooses the accelerator: CUDA or the CPU by itself; MPS only by name, and after a look at its gradients.
- ``slurm`` turns signals into a checkpoint and, where SLURM allows it, into a requeued job that goes on.
- Rank 0 alone writes into the run's folder. Predictions are gathered once, compared with the split's ids and scored
  once, so one process and many find the same.
"""
