"""Solvers of the microscale, batched in PyTorch, and the jobs that make data with them."""

from micro.threads import sleep_when_idle

sleep_when_idle()  # before PyTorch is loaded
