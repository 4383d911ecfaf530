"""The law artifact: one TorchScript module with a JSON manifest inside its `.pt` file. Needs nothing but torch.

`load_law` reads one, `export_law` certifies a law of your own and writes it, and `certify` checks a law.
"""

from surrogates.artifact.certify import certify
from surrogates.artifact.contract import complete, describe
from surrogates.artifact.export import export_law, replace_manifest, save_law
from surrogates.artifact.load import Law, content_hash, load_law, read_manifest, switch_fusion_off
from surrogates.artifact.schema import Manifest, Microstructure, Observable
from surrogates.artifact.shipped import Shipped, shipped

__all__ = [
    "Law",
    "Manifest",
    "Microstructure",
    "Observable",
    "Shipped",
    "certify",
    "complete",
    "content_hash",
    "describe",
    "export_law",
    "load_law",
    "read_manifest",
    "replace_manifest",
    "save_law",
    "shipped",
    "switch_fusion_off",
]
