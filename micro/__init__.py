"""Solvers of the microscale, batched in PyTorch, and the jobs that make data with them."""
