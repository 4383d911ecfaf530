"""Macro solvers on DOLFINx: classical laws, exported laws, explicit dynamics."""
